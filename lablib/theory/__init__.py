"""What Lipschitz networks can and cannot do, in NumPy: statements one can run and check, exactly where
possible.

``network``: networks as plain data; ``boolean``: Boolean functions; ``budget``: the budget lemma;
``order_statistics``: why the maximum is out of reach; ``impossibility``: certificates for any data set;
``constructions``: networks that attain the bounds, and networks that break the barrier.
"""
