"""One result, many faces: text, JSON and HTML. Each renders; none decides."""
