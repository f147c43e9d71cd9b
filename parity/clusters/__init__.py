"""Jobs on clusters: scripts for Slurm and Donau, and a book of what was submitted."""
