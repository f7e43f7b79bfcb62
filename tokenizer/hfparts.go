package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errNesting = errors.New("a Sequence in a Sequence is nested too deep")
	errSteps   = fmt.Errorf("there are more than %d steps", maxSteps)
	errGrowth  = fmt.Errorf("a text to put in is longer than %d bytes", maxGrowth)
)

// hfPattern is a pattern of tokenizer.json: a literal or a regular expression.
type hfPattern struct {
	String *string
	Regex  *string
}

// parseNormalizer reads a normalizer of tokenizer.json.
func parseNormalizer(raw json.RawMessage, depth int) (normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	var n struct {
		Type        string
		Normalizers []json.RawMessage
		Prepend     string
		Pattern     hfPattern
		Content     string
		StripLeft   bool `json:"strip_left"`
		StripRight  bool `json:"strip_right"`
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, err
	}
	if form, ok := unicodeForm(n.Type); ok {
		return normalizer{form}, nil
	}
	switch n.Type {
	case "Lowercase":
		return normalizer{strings.ToLower}, nil
	case "Prepend":
		if len(n.Prepend) > maxGrowth {
			return nil, errGrowth
		}
		return normalizer{prepend(n.Prepend)}, nil
	case "Replace":
		if n.Pattern.String == nil || *n.Pattern.String == "" {
			return nil, errors.New("a Replace with a regular expression is not supported")
		}
		if len(n.Content) > maxGrowth {
			return nil, errGrowth
		}
		return normalizer{replaceAll(*n.Pattern.String, n.Content)}, nil
	case "Strip":
		return normalizer{strip(n.StripLeft, n.StripRight)}, nil
	case "Sequence":
		if depth >= maxNesting {
			return nil, errNesting
		}
		var all normalizer
		for _, part := range n.Normalizers {
			one, err := parseNormalizer(part, depth+1)
			if err != nil {
				return nil, err
			}
			if all = append(all, one...); len(all) > maxSteps {
				return nil, errSteps
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("type %.40q is not supported; known are "+
		"NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, Sequence", n.Type)
}

func strip(left, right bool) func(string) string {
	return func(s string) string {
		if left {
			s = strings.TrimLeftFunc(s, unicode.IsSpace)
		}
		if right {
			s = strings.TrimRightFunc(s, unicode.IsSpace)
		}
		return s
	}
}

// preParser collects the steps of a pre-tokenizer.
type preParser struct {
	steps     []preStep
	byteLevel bool // a ByteLevel has been seen
}

// hfPre is a pre-tokenizer of any type.
type hfPre struct {
	Type             string
	PreTokenizers    []json.RawMessage
	Pattern          hfPattern
	Behavior         string
	Invert           bool
	AddPrefixSpace   *bool  `json:"add_prefix_space"`
	UseRegex         *bool  `json:"use_regex"`
	IndividualDigits bool   `json:"individual_digits"`
	Replacement      string `json:"replacement"`
	PrependScheme    string `json:"prepend_scheme"`
	Split            *bool  `json:"split"`
}

func (p *preParser) parse(raw json.RawMessage, depth int) error {
	if isNull(raw) {
		return nil
	}
	var h hfPre
	if err := json.Unmarshal(raw, &h); err != nil {
		return err
	}
	switch h.Type {
	case "Sequence":
		if depth >= maxNesting {
			return errNesting
		}
		for _, part := range h.PreTokenizers {
			if err := p.parse(part, depth+1); err != nil {
				return err
			}
		}
		return nil
	case "ByteLevel":
		return p.whole(byteLevelStep(orTrue(h.AddPrefixSpace), orTrue(h.UseRegex)), true)
	case "Metaspace":
		step, err := h.metaspace()
		if err != nil {
			return err
		}
		return p.whole(step, false)
	}
	if len(p.steps) >= maxSteps {
		return errSteps
	}
	find, err := h.matcher()
	if err != nil {
		return err
	}
	b, err := h.behavior()
	if err != nil {
		return err
	}
	p.split(find, b, h.Invert)
	return nil
}

// whole adds a step that rewrites the text.
func (p *preParser) whole(step preStep, byteLevel bool) error {
	if len(p.steps) >= maxSteps {
		return errSteps
	}
	if p.byteLevel {
		return errors.New("nothing but splits is supported after ByteLevel")
	}
	p.byteLevel = byteLevel
	p.steps = append(p.steps, step)
	return nil
}

// split adds a step that only cuts.
func (p *preParser) split(find matcher, b behavior, invert bool) {
	if p.byteLevel {
		find = inAlphabet(find)
	}
	p.steps = append(p.steps, splitStep(find, b, invert))
}

// matcher is what the splitting types look for.
func (h *hfPre) matcher() (matcher, error) {
	switch h.Type {
	case "Split":
		switch {
		case h.Pattern.Regex != nil:
			return compilePattern(*h.Pattern.Regex)
		case h.Pattern.String != nil && *h.Pattern.String != "":
			return literal(*h.Pattern.String), nil
		}
		return nil, errors.New("a Split has no pattern")
	case "Digits":
		return runes(unicode.IsNumber, !h.IndividualDigits), nil
	case "Punctuation":
		return runes(isPunctuation, false), nil
	case "WhitespaceSplit":
		return runes(unicode.IsSpace, false), nil
	case "Whitespace":
		h.Invert = true
		return wordsAndSymbols, nil
	}
	return nil, fmt.Errorf("type %.40q is not supported; known are "+
		"ByteLevel, Digits, Metaspace, Punctuation, Sequence, Split, Whitespace, WhitespaceSplit", h.Type)
}

// behavior is the given one, or the type's own.
func (h *hfPre) behavior() (behavior, error) {
	switch {
	case h.Type == "Whitespace" || h.Type == "WhitespaceSplit":
		return removed, nil
	case h.Type == "Digits", h.Type == "Punctuation" && h.Behavior == "":
		return isolate, nil
	}
	return parseBehavior(h.Behavior)
}

func (h *hfPre) metaspace() (preStep, error) {
	if h.Replacement == "" || len(h.Replacement) > utf8.UTFMax {
		return nil, errors.New("the Metaspace needs one character as replacement")
	}
	scheme := prependAlways
	switch h.PrependScheme {
	case "always":
	case "first":
		scheme = prependFirst
	case "never":
		scheme = prependNever
	case "":
		// Older files have add_prefix_space instead.
		if !orTrue(h.AddPrefixSpace) {
			scheme = prependNever
		}
	default:
		return nil, fmt.Errorf("the Metaspace has prepend_scheme %.40q: want always, first or never", h.PrependScheme)
	}
	return metaspaceStep(h.Replacement, scheme, orTrue(h.Split)), nil
}

func orTrue(b *bool) bool { return b == nil || *b }

// hfDecoder is a decoder of any type.
type hfDecoder struct {
	Type           string
	Decoders       []json.RawMessage
	Pattern        hfPattern
	Content        string
	Start, Stop    int
	Replacement    string
	PrependScheme  string `json:"prepend_scheme"`
	AddPrefixSpace *bool  `json:"add_prefix_space"`
}

// maxStrip bounds the spaces a decoder may remove.
const maxStrip = 16

// parseDecoder reads a decoder. All it may do is rewrite tokens one by one,
// then, after Fuse, remove leading spaces of the whole: that can be streamed.
func (b *builder) parseDecoder(raw json.RawMessage) error {
	if isNull(raw) {
		if b.byteLevel {
			return nil
		}
		return errors.New("there is none; a model that is not byte-level needs one")
	}
	fused := false
	return b.decoder(raw, &fused, 0)
}

func (b *builder) decoder(raw json.RawMessage, fused *bool, depth int) error {
	if len(b.respell) > maxSteps {
		return errSteps
	}
	var d hfDecoder
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	switch d.Type {
	case "Sequence":
		if depth >= maxNesting {
			return errNesting
		}
		for _, part := range d.Decoders {
			if err := b.decoder(part, fused, depth+1); err != nil {
				return err
			}
		}
		return nil
	case "ByteLevel":
		if !b.byteLevel {
			return errors.New("a ByteLevel needs a ByteLevel pre-tokenizer")
		}
		return nil
	case "Metaspace":
		if d.Replacement == "" {
			return errors.New("the Metaspace has no replacement")
		}
		b.respell = append(b.respell, replaceAll(d.Replacement, " "))
		if d.PrependScheme != "never" && orTrue(d.AddPrefixSpace) {
			b.stripStart = 1
		}
		return nil
	case "Replace":
		if *fused || d.Pattern.String == nil || *d.Pattern.String == "" {
			return errors.New("a Replace is supported for a literal before Fuse only")
		}
		if len(d.Content) > len(*d.Pattern.String) {
			return errors.New("a Replace that makes tokens longer is not supported")
		}
		b.respell = append(b.respell, replaceAll(*d.Pattern.String, d.Content))
		return nil
	case "ByteFallback":
		b.respell = append(b.respell, unhex)
		return nil
	case "Fuse":
		*fused = true
		return nil
	case "Strip":
		if !*fused || d.Content != " " || d.Stop != 0 || d.Start < 0 || d.Start > maxStrip {
			return errors.New("a Strip is supported for leading spaces after Fuse only")
		}
		b.stripStart = d.Start
		return nil
	}
	return fmt.Errorf("type %.40q is not supported; known are "+
		"ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip", d.Type)
}

// unhex turns <0xXX> into that byte and leaves other tokens alone.
func unhex(token string) string {
	var b byte
	if len(token) != len("<0x00>") {
		return token
	}
	if _, err := fmt.Sscanf(token, "<0x%02X>", &b); err != nil || hexByte(b) != token {
		return token
	}
	return rawByte(b)
}
