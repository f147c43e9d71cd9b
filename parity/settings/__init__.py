"""What a published training is set up with: every setting of both engines' configs, paired and compared."""
