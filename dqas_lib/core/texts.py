"""Names of files and classes, which anybody may have made up, as text in Markdown and HTML."""

import re
import unicodedata

# what means something in Markdown or HTML: not an underscore inside a word, a colon at its end, a dot save after "www"
MARKS = re.compile(r"[&<>`*\[\]|#~]|:(?=\S)|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.", re.IGNORECASE)
TURNS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # marks that turn the direction of what follows
NO_FORMULA = str.maketrans("$\\", "\uff04\uff3c")  # their full-width forms


def plain(name: object, most: int = 80) -> str:
    """A name that is only ever text: in Markdown, in HTML outside of a tag, where formulas are shown.

    Beyond `most` characters it is cut. What cannot be seen (line ends, marks that turn the direction of text) becomes
    a box, a dollar sign and a backslash their full-width forms, what means something in Markdown or HTML a reference.
    """
    text = str(name)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    text = "".join("\u25a1" if unicodedata.category(sign)[0] in "CZ" and sign != " " else sign for sign in text)
    return MARKS.sub(lambda mark: f"&#{ord(mark[0])};", text).translate(NO_FORMULA)
