"""Names of files and classes, which anybody may have made up, as text in Markdown and HTML."""

import unicodedata


def plain(name: object, most: int = 80) -> str:
    """A name that is only ever text: in Markdown, in HTML, in a notebook that shows formulas.

    Beyond `most` characters it is cut. What cannot be seen (line ends, marks that turn the direction of text) becomes
    a box, a dollar sign its full-width form, and what means something in Markdown or HTML a reference.
    """
    text = str(name)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    seen = ("\u25a1" if unicodedata.category(sign)[0] in "CZ" and sign != " " else sign for sign in text)
    return "".join(
        "\uff04" if sign == "$" else f"&#{ord(sign)};" if sign in "&<>\"'`*_[]\\|#~!(){}" else sign for sign in seen
    )
