"""The built-in pack: one file per cause, in a folder per family; a module with `@check`, or a YAML signature."""
