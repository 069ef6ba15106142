"""The embedded stack: all of Evergreen on one machine, from wheels alone, without a container engine.

A process manager (supervisor) owns every long-running program, since a task's child would die with its task. What runs
here is what runs in the cluster, minus the cluster: the same DAGs, jobs, model server and route rules.
"""
