"""Several machines that train as one: how they find each other, what node 0 tells the others, how one that is gone is noticed."""
