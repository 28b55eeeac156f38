"""The parts that every method is written with; `rkdsearch.methods` re-exports them.

`fields`: types of common hyperparameters. `conditional`: fields that only some settings use.
`networks`: student and teacher as a method sees them. `step`: one batch. `method`: the class.
"""
