"""Names that files and classes may have: each would do harm somewhere, if it were taken for more than text."""

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
