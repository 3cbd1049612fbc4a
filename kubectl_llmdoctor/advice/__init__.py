"""The fixes of a signature as they hold for one case: texts filled in, patches made, commands that can be run now."""
