package eval

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// Sources are the data sets that Convert knows: completion of functions
// (HumanEval's JSON lines), classification of reviews (the zip of Pang and Lee's
// movie reviews), summaries of abstracts (SciTLDR's JSON lines), and finding a
// paragraph (FairytaleQA's stories as JSON lines). Files may be gzipped.
func Sources() []string { return []string{"humaneval", "movie-reviews", "scitldr", "fairytaleqa"} }

const (
	// maxSource bounds what is read of a data set.
	maxSource = 256 << 20
	// pieceBytes is the most that one worked example takes of a prompt.
	pieceBytes = 1500
	// conversions are drawn with it: the same file gives the same cases.
	convertSeed = 17
)

// exercise is a case before its prompt has examples in front of it.
type exercise struct {
	ask     string
	answers []string
}

// Convert makes at most cases task-file cases (0: all) of a data set. Prompts are
// filled up to about size bytes with other exercises and their answers, so
// that they are long enough for a cache to matter, and show a base model what is
// wanted.
func Convert(source string, data []byte, cases, size int) ([]FileCase, error) {
	var made []FileCase
	var err error
	if source == "fairytaleqa" {
		made, err = passages(data, size)
	} else {
		var all []exercise
		var shape FileCase
		switch source {
		case "humaneval":
			shape = FileCase{Metric: "edit", Stop: "\n\n\n"}
			all, err = functions(data)
		case "movie-reviews":
			shape = FileCase{Metric: "accuracy", Stop: "\n"}
			all, err = reviews(data)
		case "scitldr":
			shape = FileCase{Metric: "rouge1", Stop: "\n"}
			all, err = abstracts(data)
		default:
			return nil, fmt.Errorf("there is no data set %q: choose of %s", source, strings.Join(Sources(), ", "))
		}
		made = withExamples(all, shape, size)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot convert %s: %w", source, err)
	}
	if len(made) == 0 {
		return nil, fmt.Errorf("cannot convert %s: there is nothing in it that makes a case", source)
	}
	if cases > 0 {
		made = made[:min(cases, len(made))]
	}
	return made, nil
}

// withExamples puts the exercises after each, worked, before it.
func withExamples(all []exercise, shape FileCase, size int) []FileCase {
	var cases []FileCase
	for i, e := range all {
		var examples []string
		left := size - len(e.ask)
		for k := 1; k < len(all); k++ {
			o := all[(i+k)%len(all)]
			worked := o.ask + " " + o.answers[0] + "\n\n\n"
			if shape.Metric == "edit" { // code goes on by itself
				worked = o.ask + o.answers[0] + "\n\n\n"
			}
			if left -= len(worked); left < 0 {
				break
			}
			examples = append(examples, worked)
		}
		slices.Reverse(examples)
		c := shape
		c.Prompt, c.Answers, c.Complete = strings.Join(examples, "")+e.ask, e.answers, true
		cases = append(cases, c)
	}
	return cases
}

// functions are HumanEval's signatures with their documentation, to be completed.
func functions(data []byte) ([]exercise, error) {
	var all []exercise
	err := jsonLines(data, func(line []byte) error {
		var row struct {
			Prompt   string `json:"prompt"`
			Solution string `json:"canonical_solution"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		if row.Prompt != "" && strings.TrimSpace(row.Solution) != "" {
			all = append(all, exercise{row.Prompt, []string{strings.TrimRight(row.Solution, "\n")}})
		}
		return nil
	})
	return all, err
}

// reviews are the beginnings of good and bad reviews in turn.
func reviews(data []byte) ([]exercise, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	kinds := map[string][]string{}
	for _, f := range z.File {
		kind := path.Base(path.Dir(f.Name))
		if path.Ext(f.Name) != ".txt" || kind != "pos" && kind != "neg" {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(r, pieceBytes))
		if err := r.Close(); err != nil {
			return nil, err
		}
		if err != nil {
			return nil, err
		}
		kinds[kind] = append(kinds[kind], strings.Join(strings.Fields(strings.ToValidUTF8(string(text), "")), " "))
	}
	rng := rand.New(rand.NewPCG(convertSeed, 0))
	var all []exercise
	for i := range min(len(kinds["pos"]), len(kinds["neg"])) {
		pair := []exercise{{review(kinds["pos"][i]), []string{"positive"}}, {review(kinds["neg"][i]), []string{"negative"}}}
		first := rng.IntN(2)
		all = append(all, pair[first], pair[1-first])
	}
	return all, nil
}

func review(text string) string { return "Review: " + text + "\nPositive or negative:" }

// abstracts are SciTLDR's, to be summarised in a sentence.
func abstracts(data []byte) ([]exercise, error) {
	var all []exercise
	err := jsonLines(data, func(line []byte) error {
		var row struct{ Source, Target []string }
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		text := strings.Join(row.Source, " ")
		if len(row.Target) == 0 || len(row.Target) > maxAnswers || len(text) > pieceBytes {
			return nil
		}
		for i := range row.Target {
			row.Target[i] = strings.TrimSpace(row.Target[i])
		}
		all = append(all, exercise{"Abstract: " + text + "\nSummary:", row.Target})
		return nil
	})
	return all, err
}

// passages are stories by numbered paragraphs, and a sentence of one of them whose
// number is asked for.
func passages(data []byte, size int) ([]FileCase, error) {
	var cases []FileCase
	rng := rand.New(rand.NewPCG(convertSeed, 1))
	err := jsonLines(data, func(line []byte) error {
		var row struct{ Sections []string }
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		var text strings.Builder
		var asks []FileCase
		for i, section := range row.Sections {
			section = strings.Join(strings.Fields(section), " ")
			if text.Len()+len(section) > size {
				break
			}
			fmt.Fprintf(&text, "Paragraph %d: %s\n\n", i+1, section)
			if starts := sentenceStarts(section); len(starts) > 1 {
				n := rng.IntN(len(starts) - 1)
				asks = append(asks, FileCase{Prompt: fmt.Sprintf("Which paragraph has the sentence \"%s\"?\nAnswer: Paragraph", strings.TrimSpace(section[starts[n]:starts[n+1]])),
					Answers: []string{fmt.Sprint(i + 1)}, Metric: "accuracy", Stop: "\n", Complete: true})
			}
		}
		if len(asks) < 2 {
			return nil
		}
		rng.Shuffle(len(asks), func(i, j int) { asks[i], asks[j] = asks[j], asks[i] })
		for _, c := range asks[:2] { // two of each story
			c.Prompt = text.String() + c.Prompt
			cases = append(cases, c)
		}
		return nil
	})
	return cases, err
}

// jsonLines shows every line of a file, gzipped or not, to f.
func jsonLines(data []byte, f func(line []byte) error) error {
	r, err := plain(bytes.NewReader(data))
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := f(lines.Bytes()); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return lines.Err()
}

// plain undoes gzip where a file is gzipped, up to maxSource bytes.
func plain(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	if magic, err := b.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, err
	}
	return io.LimitReader(z, maxSource), nil
}

// WriteTaskFile writes cases for ReadTaskFile.
func WriteTaskFile(w io.Writer, cases []FileCase) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, c := range cases {
		if err := e.Encode(c); err != nil {
			return err
		}
	}
	return nil
}
