#!/usr/bin/env python3
"""Writes golden.json: what Jinja2 makes of templates/*.jinja, set up the way
transformers sets it up (sandbox, trim_blocks, lstrip_blocks, loop controls,
a generation tag, tojson, raise_exception, strftime_now). Made with Jinja2
3.1.6. Usage: golden.py [TEMPLATE_FOLDER [OUTPUT]]
"""
import datetime, glob, json, os, sys
import jinja2, jinja2.ext, jinja2.sandbox


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime(2024, 7, 26, 9, 5, 3).strftime(f)
    return env


USER = {"role": "user", "content": "  Is 2 < 3 & \"so\"?  "}
SYSTEM = {"role": "system", "content": "Be brief. Ünïcödé 中文 🙂"}
ANSWER = {"role": "assistant", "content": "Yes.\n"}
AGAIN = {"role": "user", "content": "Why?"}
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "Tells the <weather> & 'mood'",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "a city"},
        "days": {"type": "integer", "enum": [1, 2, 7]},
        "unit": {"type": ["string", "null"], "enum": ["C", "F"], "default": "C"}},
        "required": ["city"]}, "return": {"type": "number"}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2, "f": 1.5, "ok": True, "no": None}}}]}
RESULT = {"role": "tool", "tool_call_id": "abcdef123", "name": "weather", "content": "{\"t\": 21.5}"}

CASES = {
    "plain": dict(messages=[USER]),
    "system": dict(messages=[SYSTEM, USER]),
    "turns": dict(messages=[SYSTEM, USER, ANSWER, AGAIN]),
    "closed": dict(messages=[USER, ANSWER], add_generation_prompt=False),
    "tools": dict(messages=[SYSTEM, USER], tools=TOOLS),
    "calls": dict(messages=[SYSTEM, USER, CALL, RESULT, ANSWER, AGAIN], tools=TOOLS),
    "thinking": dict(messages=[USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.", "reasoning_content": "hm"}, AGAIN],
                     extra={"enable_thinking": False}),
    "inline-think": dict(messages=[USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}, AGAIN],
                         extra={"enable_thinking": True}),
    "parts": dict(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
    "odd-roles": dict(messages=[USER, USER, {"role": "critic", "content": "x"}]),
}


def run(template, case):
    names = dict(messages=case["messages"], tools=case.get("tools"), documents=None,
                 add_generation_prompt=case.get("add_generation_prompt", True),
                 bos_token="<s>", eos_token="</s>", **case.get("extra", {}))
    try:
        return {"want": template.render(**names)}
    except Exception as e:
        return {"fails": type(e).__name__ + ": " + str(e)}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "templates")
    output = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "golden.json")
    env = environment()
    results = []
    for path in sorted(glob.glob(os.path.join(folder, "*.jinja"))):
        template = env.from_string(open(path, newline="").read())
        for name, case in CASES.items():
            results.append({"template": os.path.basename(path), "case": name, **run(template, case)})
    with open(output, "w") as f:
        json.dump({"cases": CASES, "results": results}, f, ensure_ascii=False, indent=1)
        f.write("\n")


main()
