package minijinja

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

// TestHostileTemplates runs templates that want unbounded time, memory or
// stack. Each must end in a limit error, having allocated no more than a small
// multiple of its budget.
func TestHostileTemplates(t *testing.T) {
	f := func(source string) {
		t.Helper()
		before := allocated()
		_, err := renderSource(source, map[string]Value{"s": strings.Repeat("ab ", 20_000)})
		spent := allocated() - before
		var e *Error
		if !errors.As(err, &e) || e.Kind != KindLimit {
			t.Errorf("%.80s: error is %v, want a limit", source, err)
		}
		if spent > 6*uint64(testLimits().Memory) {
			t.Errorf("%.80s: allocated %d MiB", source, spent>>20)
		}
	}
	// time
	f(`{% for i in range(10**9) %}{% endfor %}`)
	f(`{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}`)
	f(`{% for i in range(9999) %}{% for j in range(9999) %}{% if s == s ~ "" %}{% endif %}{% endfor %}{% endfor %}`)
	f(`{% set l = range(99999) | list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}`)
	f(`{% for i in range(99999) %}{% if "zz" in s %}{% endif %}{{ s.find("zz") }}{{ s.strip() | length }}{% endfor %}`)
	f(`{% for i in range(99999) %}{{ s[-1] }}{% endfor %}`)
	f(`{% for i in range(99999) %}{{ s.count("zz") }}{{ s.startswith(s) }}{{ s | wordcount }}{% endfor %}`)
	f(`{% set x = s * 200 %}{% set y = x[:-1] ~ "b" %}{% for i in range(99999) %}{% if x < y %}{% endif %}{% endfor %}`)
	// memory
	f(`{% set ns = namespace(x="x") %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}`)
	f(`{% set ns = namespace(x="x") %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}`)
	f(`{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}`)
	f(`{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}`)
	f(`{% set ns = namespace(x=[1]) %}{% for i in range(22) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}`)
	f(`{% set ns = namespace(x={}) %}{% for i in range(99) %}{% set ns.x = {"a": ns.x, "b": ns.x} %}{% endfor %}{{ ns.x | tojson }}`)
	f(`{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}`)
	f(`{{ "x" * 10**12 }}`)
	f(`{{ "x" * 9223372036854775807 }}`)
	f(`{{ [1] * 10**12 }}`)
	f(`{{ ("x" * 1000000).replace("", "y" * 1000000) }}`)
	f(`{{ ("x" * 1000000) | replace("x", "y" * 1000000) }}`)
	f(`{{ ("y" * 100000).join("x" * 100000) }}`)
	f(`{{ range(99999) | join("y" * 100000) }}`)
	f(`{{ "x".center(10**12) }}`)
	f(`{{ "x" | center(10**12) }}`)
	f(`{{ "x".ljust(10**12) }}{{ "x".zfill(10**12) }}`)
	f(`{{ "x" | indent(10**12) }}`)
	f(`{{ ("x\n" * 100000) | indent(100000) }}`)
	f(`{{ "%1000000000d" % 1 }}`)
	f(`{{ "%.1000000000f" % 1 }}`)
	f(`{{ [1] | tojson(indent=10**12) }}`)
	f(`{{ (range(99999) | list) | tojson(indent=100000) }}`)
	f(`{{ [1] | batch(10**12, "x") | list }}`)
	f(`{{ [1] | slice(10**12) | list }}`)
	f(`{% macro m(a) %}{{ a }}{{ a }}{% endmacro %}{% set ns = namespace(x="x") %}{% for i in range(99) %}{% set ns.x = m(ns.x) %}{% endfor %}`)
	f(`{% set ns = namespace(x=s) %}{% for i in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}`)
	f(`{% for i in range(999) %}{% set x = s.split() %}{% set y = s | list %}{% endfor %}`)
	f(`{% set ns = namespace() %}{% for i in range(99999) %}{% set ns.x = dict(a=1, **{"b" ~ i: 2}) %}{% endfor %}`)
	// output
	f(`{% for i in range(99999) %}` + strings.Repeat("x", 1000) + `{% endfor %}`)
	f(`{% for i in range(999) %}{{ s }}{% endfor %}`)
	// stack
	f(`{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`)
	f(`{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}`)
	f(`{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}`)
	f(`{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}`)
	f(`{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}`)
	f(`{{ ` + strings.Repeat("1 * ", 50_000) + `1 }}`)
	f(`{{ x` + strings.Repeat("|e", 50_000) + ` }}`)
	f(`{{ s` + strings.Repeat("[0]", 50_000) + ` }}`)
	f(`{% filter upper` + strings.Repeat("|upper", 30_000) + ` %}{% endfilter %}`)
}

// allocated is how many bytes this process has ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestDeepSource feeds the parser nesting that must not reach the stack.
func TestDeepSource(t *testing.T) {
	f := func(source string) {
		t.Helper()
		_, err := Parse(source, Options{})
		var e *Error
		if !errors.As(err, &e) || e.Kind == KindRuntime {
			t.Errorf("%.40s: error is %v, want a syntax or limit error", source, err)
		}
	}
	deep := func(open string) { t.Helper(); f("{{ " + strings.Repeat(open, 80_000/len(open))) }
	deep("(")
	deep("[")
	deep("{1:")
	deep("-")
	deep("not ")
	deep("a(")
	deep("a[")
	deep("1 if 1 else ")
	deep("a is b(")
	f("{% set " + strings.Repeat("(", 80_000))
	f("{% for " + strings.Repeat("(", 80_000))
	f(strings.Repeat("{% if 1 %}", 10_000))
	f("{% if 1 %}" + strings.Repeat("{% elif 1 %}", 10_000) + "{% endif %}")
	f(strings.Repeat("{% for a in b %}", 10_000))
	f(strings.Repeat("{% macro m() %}", 10_000))
	f(strings.Repeat("x", MaxSource+1))
	f(strings.Repeat("{#", 80_000))
	f(strings.Repeat("{% raw %}", 10_000))
}

// TestSandbox tries to reach beyond the values given.
func TestSandbox(t *testing.T) {
	f := func(source string) {
		t.Helper()
		out, err := renderSource(source, map[string]Value{"s": "x", "d": newDict(0)})
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s gives %q and error %v, want an error", source, out, err)
		}
	}
	f(`{{ s.__class__ }}`)
	f(`{{ s["__class__"] }}`)
	f(`{{ s | attr("__class__") }}`)
	f(`{{ [s] | map(attribute="__class__") | list }}`)
	f(`{{ range.__globals__ }}`)
	f(`{{ namespace.__init__.__globals__ }}`)
	f(`{{ d.__class__.__mro__ }}`)
	f(`{{ s.format.__self__ }}`)
	f(`{{ "{0.__class__}".format(s) }}`)
	f(`{{ "{0[0]}".format(s) }}`)
	f(`{{ cycler.__init__ }}`)
	f(`{% for i in [1] %}{{ loop._iterator }}{% endfor %}`)
	f(`{{ self.x }}`)
	f(`{{ [].append(1) }}`)
	f(`{{ d.update(a=1) }}`)
	f(`{% include "/etc/passwd" %}`)
	f(`{% import "os" as os %}`)
	f(`{% extends "base" %}`)
	f(`{% from "os" import environ %}`)
	f(`{{ open("/etc/passwd") }}`)
	f(`{{ env("HOME") }}`)
	f(`{{ os.environ }}`)
	f(`{% set s.x = 1 %}`)
	f(`{% set d.x = 1 %}`)
}

// FuzzRender looks for a template that panics or slips a limit.
func FuzzRender(f *testing.F) {
	for _, seed := range []string{
		`{% for m in l %}{{ loop.index }}{{ m.role|upper }}{% endfor %}`,
		`{% set ns = namespace(x=1) %}{% set ns.x = ns.x ~ [1, "a", {"k": none}] %}{{ ns.x }}`,
		`{% macro m(a, b=1) %}{{ a[1:-1:2] }}{{ caller() }}{% endmacro %}{% call m(s) %}x{% endcall %}`,
		`{{ "%5.2f%s" % (1.5, s) }}{{ s.split(",", 1) | tojson(indent=2) }}{{ s | indent(3) | trim("x") }}`,
		`{{ l | selectattr("n", "gt", 1) | map(attribute="n") | sort | join(",") }}{{ 7 // -2 ** 2 % 5 }}`,
		`{%- if s is string and "a" in s -%}{% raw %}{{ }}{% endraw %}{# c #}{% else %}{{ s.x.y }}{% endif %}`,
		`{% generation %}{{ l | batch(2, "x") | list }}{% endgeneration %}{% filter upper %}a{% endfilter %}`,
		`{% for a in [[1, [2]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}`,
		"{{ '\\x41\\u00e9\\101\\q' \"b\" }}{{ 0x1f }}{{ 1e400 }}{{ -9223372036854775807 - 1 }}",
	} {
		f.Add(seed, "a,b c", `[{"role": "a", "n": 2}, {"role": "b", "n": 1.5}]`)
	}
	f.Fuzz(func(t *testing.T, source, s, list string) {
		l, err := FromJSON([]byte(list))
		if err != nil {
			return
		}
		tmpl, err := Parse(source, Options{})
		var e *Error
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("Parse gives an untyped error: %v", err)
			}
			return
		}
		limits := Limits{Steps: 100_000, Memory: 1 << 20, Output: 1 << 16, Depth: 500}
		out, err := tmpl.Render(map[string]Value{"s": s, "l": l}, limits)
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("Render gives an untyped error: %v", err)
		}
		if len(out) > limits.Output {
			t.Fatalf("wrote %d bytes", len(out))
		}
		again, err2 := tmpl.Render(map[string]Value{"s": s, "l": l}, limits)
		if again != out || (err == nil) != (err2 == nil) {
			t.Fatalf("two renderings differ: %q %v, %q %v", out, err, again, err2)
		}
	})
}
