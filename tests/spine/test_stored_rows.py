"""Rows that were stored come back as often as they are asked for, in any order."""

from omni_mlflow.spine.stored_rows import StoredRows


def test_stored_rows_come_back_equal_each_time_and_in_any_order():
    made = [{"id": f"kitchen:{number}", "window": {"start_frame": number}} for number in range(5)]
    rows = StoredRows[dict]()
    for row in made:
        rows.append(row)
    made_again = list(rows)
    assert (len(rows), made_again, list(rows)) == (5, made, made)
    assert (rows[3], rows[-1], rows[1:3]) == (made[3], made[4], made[1:3])


def test_a_stored_row_does_not_change_with_the_one_it_was_made_of():
    row = {"actions": [1.0]}
    rows = StoredRows[dict]()
    rows.append(row)
    row["actions"].append(2.0)
    rows[0]["actions"].clear()
    assert rows[0] == {"actions": [1.0]}
