"""What is ours: the record of every instance, its lock and its folder. Written by labctl, read after any crash."""
