"""Full-val AP: both engines predict, one evaluator judges, and their detections are matched image by image."""
