"""Names that files and classes may have: each would do harm somewhere, if it were taken for more than text."""

from html.parser import HTMLParser

NAMES = (
    "<svg onload=harm()>",
    "<img src=x onerror=harm()>",
    "<script>harm()</script>",
    "</script><script>harm()</script>",
    "<!-- all that follows",
    "--><b>bold</b>",
    '" onmouseover="harm()',
    "' onmouseover='harm()",
    "javascript:harm()",
    "[text](javascript:harm())",
    "![picture](x)",
    "**bold** _or_ ~~not~~",
    "`code` and ```fence",
    "a | b | c",
    "$x^2$ and $\\frac{",
    "line\nend\r\n# heading",
    "mark \u202egnp.exe",
    "a" * 300,
    "&lt;b&gt; &amp; &#60;i>",
    "{{ 7 * 7 }} {% raw %} \\",
)
# the same marks in four names, short enough that nothing of them is cut off
FOUR = (
    "<svg onload=harm()> <!-- & \" onload='harm()",
    "$x^2$ and $\\frac{ `code` **bold** _or_ ~~not~~",
    "[text](javascript:harm()) ![p](x) a | b |",
    "<b>bold</b>\n# heading \u202egnp.exe {{ 7 * 7 }}",
)


class Page(HTMLParser):
    """The tags, the attributes that do something, the comments and the text of a page; math: text with formulas."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags, self.active, self.text, self.comments, self.math = [], [], "", [], ""
        self._plain: list[str] = []  # open elements from the first one on that shows no formulas
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.active += [f"{name}={value}" for name, value in attributes if name.startswith("on") or name == "href"]
        if self._plain or "mathjax_ignore" in (dict(attributes).get("class") or "").split():
            self._plain += [tag] * (tag not in ("img", "br", "input"))

    def handle_endtag(self, tag):
        if self._plain:
            self._plain.pop()

    def handle_data(self, data):
        self.text += data
        self.math += "" if self._plain else data

    def handle_comment(self, data):
        self.comments.append(data)
