"""Vagrant boxes made from labctl's own images, for hosts that cannot or shall not use a box registry.

A box is the image of the qemu provider on a disk that boots itself, with an account that Vagrant can log in to.
``workshop`` makes them, ``registry`` lays them out for others to fetch; the other modules are the parts of a box.
"""
