"""Paid once: the record of a submission, and the decision what an attempt does about it."""
