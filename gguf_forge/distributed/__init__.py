"""A conversion on several machines that share a disk: planned once, done in tasks, put together at the end.

Tasks write their parts into a folder next to the outputs. The folder is named after the plan.
"""
