"""metrics.csv survives new columns, kills and resumes."""

from tokenizers_vq.training.loggers import CsvLogger


def test_new_columns_are_added_to_the_rows_before(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.log_metrics({"b": 1.0}, step=1)
    logger.log_metrics({"a": 2.5, "b": 2.0}, step=2)
    logger.log_metrics({"b": 3.0}, step=2)
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "step,b,a",
        "1,1.0,",
        "2,2.0,2.5",
        "2,3.0,",
    ]


def test_a_resumed_run_drops_what_it_repeats_and_what_was_cut(tmp_path):
    logger = CsvLogger(tmp_path)
    for step in (1, 2, 3):
        logger.log_metrics({"a": float(step), "b": 0.0}, step=step)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,4.")  # killed in the middle of a row
    resumed = CsvLogger(tmp_path)
    resumed.log_metrics({"a": 20.0}, step=2)
    resumed.log_metrics({"a": 21.0}, step=2)
    assert [(row["step"], row["a"]) for row in resumed.rows()] == [
        ("1", "1.0"),
        ("2", "20.0"),
        ("2", "21.0"),
    ]
