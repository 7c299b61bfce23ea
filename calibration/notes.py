"""How a reported line begins that warns of something, so that it is said even where no progress is reported."""

NOTE = "note: "
