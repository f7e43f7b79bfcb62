package quant

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ParseFormat reads a KV format: a base name ([FormatNames]) and options after
// commas, as in "hq2,recent=256" or "hack,bits=4,round=nearest". The options are
//
//	hq*:     sym=on|off|auto rotate=on|off basis=hadamard|balanced mean=on|off
//	         clip=on|off norm=on|off sinks=N recent=N (multiples of 64)
//	         k2=none|all|lead:N|lead:quarter|tokens:N v2=(as k2) budget=BITS
//	         important=N%
//	hack*:   bits=2|4|8 partition=32|64|128 se=on|off rqe=on|off
//	         round=nearest|stochastic seed=N prefill=exact|codes
//	kivi:    bits=2|4 group=32|64 residual=64|128|256 prefill=exact|codes
//	cachegen: delta=off|10 prefill=exact|codes
//	kvquant: bits=2|3|4 prefill=exact|codes
//
// calibrated says whether the model has a calibration file: sym=auto, the
// default, is symmetric exactly where means are subtracted. The result's Name
// is canonical: equal formats have equal names, and parsing a Name (with the
// same calibrated) gives the same Format.
func ParseFormat(s string, calibrated bool) (Format, error) {
	name, rest, more := strings.Cut(s, ",")
	f, err := base(name)
	if err != nil {
		return Format{}, err
	}
	p := parser{Format: f, base: name, sym: "auto"}
	if more {
		if err := p.options(rest); err != nil {
			return Format{}, err
		}
	}
	if err := p.finish(calibrated); err != nil {
		return Format{}, fmt.Errorf("cannot use KV format %q: %w", s, err)
	}
	p.Name = canonical(p.Format, calibrated)
	return p.Format, nil
}

// parser is a format on its way from text.
type parser struct {
	Format
	base string // as written
	sym  string // on, off or auto
}

// option is one key of a family: how it is read and how it is written back.
type option struct {
	key     string
	allowed string
	set     func(p *parser, value string) bool
	get     func(f Format) string
}

func (p *parser) options(s string) error {
	known := optionsOf(p.Family)
	if len(known) == 0 {
		return fmt.Errorf("cannot use KV format \"%s,%s\": %s takes no options", p.base, s, p.base)
	}
	seen := map[string]bool{}
	for _, item := range strings.Split(s, ",") {
		key, value, _ := strings.Cut(item, "=")
		i := slices.IndexFunc(known, func(o option) bool { return o.key == key })
		if i < 0 {
			return fmt.Errorf("cannot use option %q of KV format %s: %sits options are %s", item, p.base, suggest(key, keysOf(known)), strings.Join(keysOf(known), ", "))
		}
		if seen[key] {
			return fmt.Errorf("cannot use KV format %s: option %s is given twice", p.base, key)
		}
		seen[key] = true
		if !known[i].set(p, value) {
			return fmt.Errorf("cannot use option %q of KV format %s: want %s=%s", item, p.base, key, known[i].allowed)
		}
	}
	return nil
}

// finish resolves what depends on more than one option.
func (p *parser) finish(calibrated bool) error {
	switch p.Family {
	case FamilyHQ:
		p.Symmetric = p.sym == "on" || p.sym == "auto" && calibrated && p.Mean
		if p.K.Second == SecondShared && !p.Symmetric {
			return fmt.Errorf("k2=%s shares a scale without a zero: it wants symmetric codes (a calibration with means, or sym=on)", p.K)
		}
		if p.K.Leading == Planned && !p.Balanced {
			return fmt.Errorf("k2=plan wants basis=balanced")
		}
		if p.Budget > 0 && p.K.Leading != Planned {
			return fmt.Errorf("budget=%s has a meaning only where layers are planned: use hq2b or k2=plan", p.budget())
		}
		return p.chooseImportant()
	case FamilyHack, FamilyHackV2:
		p.PageTokens = max(64, p.Partition)
		if p.Seed != 0 && !p.Stochastic {
			return fmt.Errorf("seed=%d has no meaning with round=nearest: drop it or use round=stochastic", p.Seed)
		}
	}
	return nil
}

// chooseImportant gives the halves that have no second plane one for important
// tokens, with room in a page for twice its share: they come in clusters.
func (p *parser) chooseImportant() error {
	if p.Important == 0 {
		return nil
	}
	if p.K.Second != SecondNone && p.V.Second != SecondNone {
		return fmt.Errorf("important=%d has no meaning where K and V have the second plane already", p.Important)
	}
	p.ExactPrefill = true // its exact form is there until the end of a prompt anyway
	for _, h := range []*Half{&p.K, &p.V} {
		if h.Second == SecondNone {
			*h = Half{Second: SecondImportant, Tokens: min(56, roundUp(2*p.PageTokens*p.Important/100, 8))}
		}
	}
	return nil
}

// canonical writes f as the base name nearest to it and its deviations from
// that base in the order of optionsOf.
func canonical(f Format, calibrated bool) string {
	name := baseName(f)
	def, err := base(name)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	def.Symmetric = f.Family == FamilyHQ && calibrated && f.Mean
	var b strings.Builder
	b.WriteString(name)
	for _, o := range optionsOf(f.Family) {
		if v := o.get(f); v != o.get(def) {
			fmt.Fprintf(&b, ",%s=%s", o.key, v)
		}
	}
	return b.String()
}

func baseName(f Format) string {
	switch {
	case f.Family == FamilyHack:
		return "hack"
	case f.Family == FamilyHackV2:
		return "hack:v2"
	case f.Family == FamilyKIVI:
		return "kivi"
	case f.Family == FamilyCacheGen:
		return "cachegen"
	case f.Family == FamilyKVQuant:
		return "kvquant"
	case f.Family == FamilyGroup && f.Bits == 8:
		return "int8"
	case f.Family == FamilyGroup:
		return "int4"
	case f.Family == FamilyF16 && f.Wide:
		return "f32"
	case f.Family == FamilyF16:
		return "f16"
	case f.Balanced && f.K.Second == SecondLeading && f.K.Leading == Quarter:
		return "hq2+"
	case f.Balanced && f.K.Leading == Planned:
		return "hq2b"
	case f.K.Second == SecondAll && f.V.Second == SecondAll:
		return "hq4"
	case f.K.Second == SecondAll && (f.V.Second == SecondNone || f.V.Second == SecondImportant):
		return "hq3"
	}
	return "hq2"
}

func optionsOf(family Family) []option {
	switch family {
	case FamilyHQ:
		return hqOptions()
	case FamilyHack, FamilyHackV2:
		return hackOptions()
	case FamilyKIVI:
		return kiviOptions()
	case FamilyCacheGen:
		return cacheGenOptions()
	case FamilyKVQuant:
		return kvquantOptions()
	}
	return nil
}

func hqOptions() []option {
	return []option{
		{"sym", "on|off|auto", func(p *parser, v string) bool {
			p.sym = v
			return v == "on" || v == "off" || v == "auto"
		}, func(f Format) string { return onOff(f.Symmetric) }},
		flag("rotate", func(f *Format) *bool { return &f.Rotate }),
		pair("basis", "hadamard", "balanced", func(f *Format) *bool { return &f.Balanced }),
		flag("mean", func(f *Format) *bool { return &f.Mean }),
		flag("clip", func(f *Format) *bool { return &f.Clip }),
		flag("norm", func(f *Format) *bool { return &f.Norm }),
		window("sinks", func(f *Format) *int { return &f.Sinks }),
		window("recent", func(f *Format) *int { return &f.Recent }),
		secondPlane("k2", func(f *Format) *Half { return &f.K }),
		secondPlane("v2", func(f *Format) *Half { return &f.V }),
		{"budget", "BITS per element of K and V, 2 to 4.5 in thousandths, or plan: the calibration's own", func(p *parser, v string) bool {
			bits, err := strconv.ParseFloat(v, 64)
			if v == "plan" {
				bits, err = 0, nil
			}
			p.Budget = int(math.Round(1000 * bits))
			return err == nil && (v == "plan" || bits >= 2 && bits <= 4.5 && p.budget() == v)
		}, Format.budget},
		{"important", "N, per cent of the tokens, 1 to 50", func(p *parser, v string) bool {
			n, err := strconv.Atoi(strings.TrimSuffix(v, "%"))
			p.Important = n
			return err == nil && n >= 1 && n <= 50
		}, func(f Format) string { return strconv.Itoa(f.Important) }},
	}
}

// budget is Budget as the option writes it.
func (f Format) budget() string {
	if f.Budget == 0 {
		return "plan"
	}
	return strconv.FormatFloat(float64(f.Budget)/1000, 'f', -1, 64)
}

func hackOptions() []option {
	return []option{
		choice("bits", func(f *Format) *int { return &f.Bits }, 2, 4, 8),
		choice("partition", func(f *Format) *int { return &f.Partition }, 32, 64, 128),
		flag("se", func(f *Format) *bool { return &f.SE }),
		flag("rqe", func(f *Format) *bool { return &f.RQE }),
		pair("round", "nearest", "stochastic", func(f *Format) *bool { return &f.Stochastic }),
		{"seed", "N, a whole number", func(p *parser, v string) bool {
			n, err := strconv.ParseUint(v, 10, 64)
			p.Seed = n
			return err == nil
		}, func(f Format) string { return strconv.FormatUint(f.Seed, 10) }},
		pair("prefill", "codes", "exact", func(f *Format) *bool { return &f.ExactPrefill }),
	}
}

func kiviOptions() []option {
	return []option{
		choice("bits", func(f *Format) *int { return &f.Bits }, 2, 4),
		choice("group", func(f *Format) *int { return &f.Partition }, 32, 64),
		choice("residual", func(f *Format) *int { return &f.Recent }, 64, 128, 256),
		pair("prefill", "codes", "exact", func(f *Format) *bool { return &f.ExactPrefill }),
	}
}

func cacheGenOptions() []option {
	return []option{
		{"delta", "off|10", func(p *parser, v string) bool {
			p.Delta = 0
			if v == "10" {
				p.Delta = 10
			}
			return v == "10" || v == "off"
		}, func(f Format) string {
			if f.Delta == 0 {
				return "off"
			}
			return strconv.Itoa(f.Delta)
		}},
		pair("prefill", "codes", "exact", func(f *Format) *bool { return &f.ExactPrefill }),
	}
}

func kvquantOptions() []option {
	return []option{
		choice("bits", func(f *Format) *int { return &f.Bits }, 2, 3, 4),
		pair("prefill", "codes", "exact", func(f *Format) *bool { return &f.ExactPrefill }),
	}
}

func flag(key string, field func(*Format) *bool) option { return pair(key, "off", "on", field) }

// pair is a boolean option with words for false and true.
func pair(key, no, yes string, field func(*Format) *bool) option {
	return option{key, yes + "|" + no, func(p *parser, v string) bool {
		*field(&p.Format) = v == yes
		return v == yes || v == no
	}, func(f Format) string {
		if *field(&f) {
			return yes
		}
		return no
	}}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// maxWindow keeps the arithmetic on windows far from overflow; no context is
// that long.
const maxWindow = 1 << 24

// window is a number of tokens in whole pages of 64, so that no page is read
// partly as codes.
func window(key string, field func(*Format) *int) option {
	return option{key, "N, a multiple of 64", func(p *parser, v string) bool {
		n, err := strconv.Atoi(v)
		*field(&p.Format) = n
		return err == nil && n >= 0 && n <= maxWindow && n%64 == 0
	}, func(f Format) string { return strconv.Itoa(*field(&f)) }}
}

func choice(key string, field func(*Format) *int, values ...int) option {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = strconv.Itoa(v)
	}
	return option{key, strings.Join(words, "|"), func(p *parser, v string) bool {
		i := slices.Index(words, v)
		if i >= 0 {
			*field(&p.Format) = values[i]
		}
		return i >= 0
	}, func(f Format) string { return strconv.Itoa(*field(&f)) }}
}

// secondPlane reads which values of a half have the second 2-bit plane.
func secondPlane(key string, field func(*Format) *Half) option {
	allowed := "none|all|lead:N (leading channels, a multiple of 16, or lead:quarter)|tokens:N (tokens of a page, 8 to 56 in steps of 8)"
	if key == "k2" {
		allowed += "|shared:N (leading channels that share a scale with the others)|plan (shared:N with each layer's N by the calibration)"
	}
	return option{key, allowed, func(p *parser, v string) bool {
		h, ok := parseHalf(v)
		*field(&p.Format) = h
		return ok && (key == "k2" || h.Second != SecondShared)
	}, func(f Format) string { return field(&f).String() }}
}

func parseHalf(v string) (Half, bool) {
	word, count, counted := strings.Cut(v, ":")
	n, err := strconv.Atoi(count)
	switch {
	case v == "none":
		return Half{}, true
	case v == "all":
		return Half{Second: SecondAll}, true
	case v == "lead:quarter":
		return Half{Second: SecondLeading, Leading: Quarter}, true
	case v == "plan":
		return Half{Second: SecondShared, Leading: Planned}, true
	case !counted || err != nil || n <= 0:
		return Half{}, false
	case word == "lead":
		return Half{Second: SecondLeading, Leading: n}, n%16 == 0 && n <= maxHeadDim
	case word == "shared":
		return Half{Second: SecondShared, Leading: n}, n%16 == 0 && n <= maxHeadDim
	case word == "tokens":
		return Half{Second: SecondTokens, Tokens: n}, n%8 == 0 && n < 64
	}
	return Half{}, false
}

// String is the half as the options k2 and v2 write it.
func (h Half) String() string {
	switch h.Second {
	case SecondAll:
		return "all"
	case SecondLeading:
		if h.Leading == Quarter {
			return "lead:quarter"
		}
		return fmt.Sprintf("lead:%d", h.Leading)
	case SecondShared:
		if h.Leading == Planned {
			return "plan"
		}
		return fmt.Sprintf("shared:%d", h.Leading)
	case SecondTokens:
		return fmt.Sprintf("tokens:%d", h.Tokens)
	}
	return "none"
}

func keysOf(options []option) []string {
	keys := make([]string, len(options))
	for i, o := range options {
		keys[i] = o.key
	}
	return keys
}

// suggest is "did you mean X?" with the known words nearest to word, or nothing
// where none is near.
func suggest(word string, known []string) string {
	best := 3 // more edits than two is no typing error
	var near []string
	for _, k := range known {
		switch d := editDistance(word, k); {
		case d < best:
			best, near = d, []string{k}
		case d == best && best < 3:
			near = append(near, k)
		}
	}
	if len(near) == 0 {
		return ""
	}
	return fmt.Sprintf("did you mean %s? ", strings.Join(near, " or "))
}

// editDistance counts the insertions, deletions and substitutions between two
// words; words too long to be a known name with a typing error are far away.
func editDistance(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 32
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
