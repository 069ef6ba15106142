"""In what company rows are asked, to see that an answer rests on its own row alone.

A feature function that ranks or averages over the rows it gets computes the same golden rows right for ever, as long as
all of them are asked at once; a client asks one row at a time, or beside rows of somebody else.
"""

ALONE = 8  # rows that are asked one by one; the other groupings hold every row


def list_groupings(count: int, alone: int = ALONE) -> list[list[int]]:
    """Positions of `count` rows by request: all, all backwards, every second, the others, and some alone."""
    everybody = list(range(count))
    groups = (everybody, everybody[::-1], everybody[::2], everybody[1::2])
    return [group for group in (*groups, *([position] for position in everybody[:alone])) if group]
