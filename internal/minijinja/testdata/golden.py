#!/usr/bin/env python3
"""Writes golden.json: what Jinja2 3.1.6, set up as transformers does, makes of
each snippet of snippets.txt."""
import json, os
import jinja2, jinja2.ext, jinja2.sandbox


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


env = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
    x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
names = {"d": {"k": "v", "n": 3, "one": 1}, "l": [
    {"role": "a", "n": 2, "ok": True, "sub": {"x": 1}}, {"role": "b", "n": 1, "ok": False, "sub": {"x": 2}}, {"role": "a", "n": 0, "sub": {"x": 3}}]}
here = os.path.dirname(os.path.abspath(__file__))
snippets = open(os.path.join(here, "snippets.txt")).read().split("\n---\n")
out = []
for s in snippets:
    try:
        out.append({"source": s, "want": env.from_string(s).render(**names)})
    except Exception as e:
        out.append({"source": s, "fails": type(e).__name__ + ": " + str(e)})
with open(os.path.join(here, "golden.json"), "w") as f:
    json.dump({"names": names, "results": out}, f, ensure_ascii=False, indent=1)
    f.write("\n")
