"""How pages of jobs look; apart from any of them, since some draw without the libraries that others measure with."""

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2a24}
h1{font-size:1.4rem} table{border-collapse:collapse;width:100%} td,th{padding:.3rem .6rem;text-align:left}
tr+tr{border-top:1px solid #dde5e0} .bar{height:.7rem;border-radius:.35rem;background:#9bb8a6;min-width:2px}
.moved .bar{background:#c8502d} .moved td:first-child{font-weight:600} .alarm{color:#c8502d} .calm{color:#2f7d4f}
"""
