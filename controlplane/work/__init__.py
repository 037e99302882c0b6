"""Work that outlasts a request: jobs as rows, and durable workflows on the one engine that is imported here only.

What must stay true: a job that only waits for targets to reach a generation has no thread; a workflow is made of
``ensure`` steps that may be repeated; whatever a dead process left is taken up again from the rows.
"""
