"""What a receipt tells people: what was paid, what kills took, and what reuse saved."""

from tasks.candidates.receipt import Receipt

TAKEN = Receipt(seconds=360.0, cpu_seconds=300.0, max_rss_bytes=1, usd=0.5)


def test_it_says_what_a_training_cost_and_what_reuse_saved() -> None:
    """The same seconds and dollars: paid once, and after that saved."""
    assert TAKEN.in_words(reused=False) == {"training": "6.0 min, 0.50 USD"}
    assert TAKEN.in_words(reused=True) == {"saved by reuse": "6.0 min of training, 0.50 USD"}


def test_what_lay_before_the_script_was_paid_too() -> None:
    """A rented machine costs from its start on: the sum is told in its parts, and reuse saves both."""
    rented = TAKEN.model_copy(update={"way_seconds": 120.0, "usd": 0.8})
    told = rented.in_words(reused=False)
    assert told == {"training": "6.0 min, 0.60 USD", "before the script": "2.0 min, 0.20 USD: the machine's start, and the data"}
    assert rented.in_words(reused=True) == {"saved by reuse": "6.0 min of training, 0.80 USD"}
    assert rented.model_copy(update={"usd": None}).in_words(reused=False) == {"training": "6.0 min"}


def test_it_names_the_machine() -> None:
    """So that seconds mean something."""
    assert TAKEN.model_copy(update={"machine": "AMD EPYC, 2 cores"}).in_words(reused=False) == {"training": "6.0 min, 0.50 USD on AMD EPYC, 2 cores"}


def test_it_says_what_the_attempts_before_took() -> None:
    """At the same price; without a price the time alone."""
    killed = TAKEN.model_copy(update={"attempts": 3, "earlier_seconds": 90.0})
    assert killed.in_words(reused=False)["attempts before"] == "2, 90 s, 0.12 USD"
    assert killed.model_copy(update={"usd": None}).in_words(reused=False) == {"training": "6.0 min", "attempts before": "2, 90 s"}


def test_it_tells_what_was_lost_from_what_was_gone_on_from() -> None:
    """Only what came after the last seal is lost; the rest of the attempts before is in the model, and what reuse saves counts it too."""
    killed = TAKEN.model_copy(update={"attempts": 3, "earlier_seconds": 180.0, "lost_seconds": 36.0})
    assert killed.in_words(reused=False) == {"training": "6.0 min, 0.50 USD", "attempts before": "2, 3.0 min, 0.25 USD", "lost of that": "36 s, 0.05 USD"}
    assert killed.in_words(reused=True) == {"saved by reuse": "8.4 min of training, 0.70 USD"}
    assert "lost of that" not in killed.model_copy(update={"lost_seconds": 0.0}).in_words(reused=False)


def test_an_older_receipt_can_still_be_read() -> None:
    """One that was published before attempts were counted."""
    assert Receipt.model_validate({"seconds": 5, "cpu_seconds": 4, "max_rss_bytes": 3}).attempts == 1
