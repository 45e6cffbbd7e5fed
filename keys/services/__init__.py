"""Everything that writes, apart from the lane: one function, one transaction, one audit row in it.

Admin actions, views, tasks and commands parse, permit, call one of these and show the result.
"""
