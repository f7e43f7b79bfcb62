package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dlclark/regexp2/v2"
	"github.com/stretchr/testify/require"
)

// handPatterns are the patterns that are scanned by hand, and so must agree
// with the engine that runs all others.
var handPatterns = []string{
	patternGPT2, patternLlama3, patternQwen2, patternCL100K, patternTiktok,
	`\s+$`, `[\r\n]`, `\p{N}`, `\p{N}{1,3}`, `\s?\p{L}+`, `\s?\p{P}+`, `[0-9][0-9][0-9]`, `[^a-c\s]+`, ` ?[\p{L}\p{M}]+`,
	patternDeepSeekHan, patternDeepSeekPunct, patternDeepSeekLetters,
}

func spans(t testing.TB, m matcher, text string) (out []string) {
	t.Helper()
	require.NoError(t, m(text, func(start, end int) { out = append(out, text[start:end]) }))
	return out
}

// compareScanners runs every pattern by hand and by engine.
func compareScanners(t testing.TB, text string) {
	t.Helper()
	if strings.Contains(text, "ſ") {
		return // the engine folds ASCII case only
	}
	for _, pattern := range handPatterns {
		byHand, err := compilePattern(pattern)
		require.NoError(t, err)
		re := regexp2.MustCompile(pattern, regexp2.Multiline)
		require.Equal(t, spans(t, regexMatcher(re), text), spans(t, byHand, text), "pattern %s, text %q", pattern, text)
	}
}

// alphabetSoup mixes the characters at which the patterns decide.
func alphabetSoup(r *rand.Rand, n int) string {
	soup := []rune("aZé中ʼ'sStTrReEvVmMlLdD 0 19²½٣ \t\n\r\u00a0\u0085\u2028\u3000.!,，、‘$+<^|`🙂\u0301ǅªⅣ한ࠀ")
	var b strings.Builder
	for range n {
		b.WriteRune(soup[r.IntN(len(soup))])
	}
	return b.String()
}

func TestScannersAgreeWithEngine(t *testing.T) {
	for _, text := range []string{"", " ", "  ", "\n", " \n", "\n ", "a \n  b", "   \n\n  x", "'", "''s", "don'T've'LLx", "a  12  3456\r\n\r\n"} {
		compareScanners(t, text)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		compareScanners(t, alphabetSoup(r, r.IntN(30)))
	}
}

// TestHandPatterns makes sure that the scanners above are used at all.
func TestHandPatterns(t *testing.T) {
	for _, pattern := range handPatterns {
		_, run := parseRunPattern(pattern)
		require.True(t, run || knownPattern(pattern) != nil, pattern)
	}
	for _, other := range []string{``, `a|b`, `(a)`, `a*`, `\d+`, `[a-z&&[^b]]+`, `[[:alpha:]]`, `a+?`, `a++`, `.`, `^a`, `a{2,5}`, `a?`, `\bx`, `[b-a]`, `[a`} {
		_, run := parseRunPattern(other)
		require.False(t, run, other)
	}
}

func TestContractionFoldsLongS(t *testing.T) {
	require.Equal(t, []string{"it", "'ſ", "x"}, spans(t, knownPattern(patternLlama3), "it'ſx"))
	require.Equal(t, []string{"it", "'", "ſx"}, spans(t, knownPattern(patternGPT2), "it'ſx"))
}

func TestSplitBehaviors(t *testing.T) {
	f := func(name string, invert bool, text, want string) {
		t.Helper()
		b, err := parseBehavior(name)
		require.NoError(t, err)
		var got []string
		err = splitStep(literal("-"), b, invert)(piece{text: text}, func(p piece) { got = append(got, p.text) })
		require.NoError(t, err)
		require.Equal(t, want, strings.Join(got, "|"))
	}
	text := "the-final--countdown"
	f("Isolated", false, text, "the|-|final|-|-|countdown")
	f("Removed", false, text, "the|final|countdown")
	f("MergedWithPrevious", false, text, "the-|final-|-|countdown")
	f("MergedWithNext", false, text, "the|-final|-|-countdown")
	f("Contiguous", false, text, "the|-|final|--|countdown")
	f("Removed", true, text, "-|-|-")
	f("Isolated", true, text, "the|-|final|-|-|countdown")
	f("Isolated", false, "", "")
	f("MergedWithNext", false, "--", "-|-")
	_, err := parseBehavior("Nope")
	require.ErrorContains(t, err, "Nope")
}

// TestPreTokenizers checks the pieces of each component of tokenizer.json.
func TestPreTokenizers(t *testing.T) {
	f := func(json, text, want string) {
		t.Helper()
		var p preParser
		require.NoError(t, p.parse([]byte(json), 0))
		var got []string
		next := func(p piece) { got = append(got, p.text) }
		for i := len(p.steps) - 1; i >= 0; i-- {
			step, sink := p.steps[i], next
			next = func(p piece) { require.NoError(t, step(p, sink)) }
		}
		next(piece{text: text, first: true})
		require.Equal(t, want, strings.Join(got, "|"), json)
	}
	f(`{"type":"Digits","individual_digits":true}`, "a 12b", "a |1|2|b")
	f(`{"type":"Digits","individual_digits":false}`, "a 12b", "a |12|b")
	f(`{"type":"Punctuation"}`, "a!?$b", "a|!|?|$|b")
	f(`{"type":"Punctuation","behavior":"Contiguous"}`, "a!?$b", "a|!?$|b")
	f(`{"type":"WhitespaceSplit"}`, " a  b.c ", "a|b.c")
	f(`{"type":"Whitespace"}`, " a_1  b.,c ", "a_1|b|.,|c")
	f(`{"type":"Metaspace","replacement":"▁","add_prefix_space":true}`, "a  b", "▁a|▁|▁b")
	f(`{"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":false}`, "a b", "a▁b")
	f(`{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}`, " a b", "▁a|▁b")
	f(`{"type":"ByteLevel","add_prefix_space":true}`, "it's 1", " it|'s| 1")
	f(`{"type":"ByteLevel","use_regex":false,"add_prefix_space":false}`, "it's 1", "it's 1")
	f(`{"type":"Split","pattern":{"String":"b"},"behavior":"Removed"}`, "abcb", "a|c")
	f(`{"type":"Split","pattern":{"Regex":"(?<=a)b+"},"behavior":"Isolated"}`, "abbcb", "a|bb|cb")
	// After ByteLevel digits are those of the byte alphabet: м is D0 BC, ¼.
	f(`{"type":"Sequence","pretokenizers":[{"type":"ByteLevel","add_prefix_space":false},{"type":"Digits"}]}`,
		"xм 1", "x\xd0|\xbc| |1")
}

func TestWordStarts(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		var got []string
		require.NoError(t, wordStartStep("▁")(piece{text: text}, func(p piece) { got = append(got, p.text) }))
		require.Equal(t, want, strings.Join(got, "|"))
	}
	f("▁a▁b", "▁a|▁b")
	f("▁▁a▁▁▁bc", "▁▁a|▁▁▁bc")
	f("a▁", "a|▁")
	f("▁▁", "▁▁")
	f("ab", "ab")
}

// TestSlowPattern: a pattern that backtracks for ever ends in an error.
func TestSlowPattern(t *testing.T) {
	re := regexp2.MustCompile(`(?:[xy]|xx|[xz]x)+$`)
	re.MatchTimeout = time.Millisecond
	err := regexMatcher(re)(strings.Repeat("x", 500)+"!", func(int, int) {})
	require.ErrorIs(t, err, errSlowPattern)
}

func FuzzScanners(f *testing.F) {
	f.Add("don't  stop\n\n 123 'LL ...")
	f.Add("  \r\n\u3000a\u0301 中文，。x9")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 200 && invalidUTF8(text) < 0 {
			compareScanners(t, text)
		}
	})
}
