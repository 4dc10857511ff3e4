"""The paper's tables and figures as experiments: rows to train and score, the paper's values beside ours."""
