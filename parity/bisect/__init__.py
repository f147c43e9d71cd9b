"""Which change broke it: a commit between two, or a package between two environments, by any check command."""
