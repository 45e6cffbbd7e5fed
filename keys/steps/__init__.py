"""The database steps of a request, in group-committed batches. Only `keys.lane` calls `batch.run`.

One batch is one transaction. Its locks, in this order: the Pool row, the candidate keys by id, the InFlight rows
by id. Other writing transactions of the service take theirs in the same order.
"""
