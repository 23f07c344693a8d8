#!/bin/sh -e
echo "$HOME" 'and #{more}'
cat <<END
END
END

