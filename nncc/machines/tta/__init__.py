"""Transport-triggered machines as data: the object model of OpenASIP's architecture files.

    nncc.machines.load("tta").architecture            an `Architecture` from a machine file
    nncc.machines.load("mine.adf").architecture       one from a file of OpenASIP

`model.py` has the classes, `check.py` what makes an architecture legal, `tables.py` and `adf.py`
the two readers.
"""
