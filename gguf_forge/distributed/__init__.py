"""A conversion on several machines that share a disk: planned once, done in tasks, put together at the end.

What tasks make lies beside the outputs, in a folder named for the plan.
"""
