"""Setting the clock of a guest whose memory is of another time."""

SET_CLOCK = """\
late=0
if read -r clock </sys/class/rtc/rtc0/since_epoch 2>/dev/null; then late=$((clock - ${now%.*})); fi
if [ "$late" -gt 1 ] && [ "$late" -lt 300 ]; then now=$clock; fi
date -u -s "@$now" >/dev/null
"""
"""Shell text; ``now`` holds the seconds since the epoch at which it was sent to the guest, with a fraction.

A busy host may take seconds to carry it out. The hardware's clock, which goes on through a load or a restore, says how
late it is; one that is hours away, as where it keeps local time, is not believed.
"""
