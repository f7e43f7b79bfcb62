package eval

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// movieReviews is a zip of reviews, laid out as the published one.
func movieReviews(t *testing.T, texts map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range texts {
		w, err := z.Create("movie_reviews/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestConvert(t *testing.T) {
	f := func(source, data string, cases, size int, want ...string) {
		t.Helper()
		made, err := Convert(source, []byte(data), cases, size)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			return
		}
		var b bytes.Buffer
		if err := WriteTaskFile(&b, made); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(b.String()); got != strings.Join(want, "\n") {
			t.Errorf("%s gives\n%s\nwant\n%s", source, got, strings.Join(want, "\n"))
		}
		if read, err := ReadTaskFile(&b); err != nil || len(read) != len(made) {
			t.Errorf("%s: %d of %d cases are read back: %v", source, len(read), len(made), err)
		}
	}
	f("humaneval", `{"prompt":"def a():\n","canonical_solution":"    return 1\n"}`+"\n"+`{"prompt":"def b():\n","canonical_solution":"    return 2\n"}`, 1, 100,
		`{"prompt":"def b():\n    return 2\n\n\ndef a():\n","answers":["    return 1"],"metric":"edit","complete":true,"stop":"\n\n\n"}`)
	f("humaneval", `{"prompt":"def a():\n","canonical_solution":"    return 1\n"}`+"\n"+`{"prompt":"def b():\n","canonical_solution":"    return 2\n"}`, 1, 20, // no room for an example
		`{"prompt":"def a():\n","answers":["    return 1"],"metric":"edit","complete":true,"stop":"\n\n\n"}`)
	f("scitldr", `{"source":["One.","Two."],"target":["Both. ","All."]}`+"\n"+`{"source":["None."],"target":[]}`, 0, 100,
		`{"prompt":"Abstract: One. Two.\nSummary:","answers":["Both.","All."],"metric":"rouge1","complete":true,"stop":"\n"}`)
	f("fairytaleqa", `{"sections":["A king. He slept. He woke.","A queen.","She sang.  It rained. It stopped."]}`, 0, 1000,
		`{"prompt":"Paragraph 1: A king. He slept. He woke.\n\nParagraph 2: A queen.\n\nParagraph 3: She sang. It rained. It stopped.\n\nWhich paragraph has the sentence \"It rained.\"?\nAnswer: Paragraph","answers":["3"],"metric":"accuracy","complete":true,"stop":"\n"}`,
		`{"prompt":"Paragraph 1: A king. He slept. He woke.\n\nParagraph 2: A queen.\n\nParagraph 3: She sang. It rained. It stopped.\n\nWhich paragraph has the sentence \"He slept.\"?\nAnswer: Paragraph","answers":["1"],"metric":"accuracy","complete":true,"stop":"\n"}`)

	made, err := Convert("movie-reviews", movieReviews(t, map[string]string{"pos/a.txt": "fine \n film", "neg/b.txt": "bad", "README": "x", "neg/c.txt": "worse"}), 0, 1000)
	if err != nil || len(made) != 2 {
		t.Fatal(made, err)
	}
	for i, c := range made {
		other := made[1-i]
		if want := "Review: fine film\nPositive or negative:"; c.Answers[0] == "positive" && !strings.HasSuffix(c.Prompt, want) {
			t.Errorf("%q does not end with %q", c.Prompt, want)
		}
		if !strings.Contains(c.Prompt, "negative: "+other.Answers[0]+"\n\n\n") {
			t.Errorf("%q does not have the other review as an example", c.Prompt)
		}
	}

	refuse := func(source, data, want string) {
		t.Helper()
		if _, err := Convert(source, []byte(data), 0, 1000); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s of %q: %v, want an error with %q", source, data, err, want)
		}
	}
	refuse("glue", "", "humaneval, movie-reviews")
	refuse("humaneval", "", "nothing in it")
	refuse("humaneval", "{", "line 1")
	refuse("scitldr", "\x1f\x8bxx", "cannot convert")
	refuse("movie-reviews", "no zip", "zip")
	refuse("fairytaleqa", `{"sections":["Alone. It is."]}`, "nothing in it")
}

// The task files that are shipped can be read, have prompts as long as they say and
// answers that are right by their metric.
func TestShippedTaskFiles(t *testing.T) {
	for _, name := range []string{"completion", "passages", "reviews", "summaries"} {
		file, err := os.Open(filepath.Join("tasks", name+".jsonl.gz"))
		if err != nil {
			t.Fatal(err)
		}
		cases, err := ReadTaskFile(file)
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil || len(cases) != 40 {
			t.Fatalf("%s: %d cases, %v", name, len(cases), err)
		}
		for i, c := range cases {
			if len(c.Prompt) < 1000 || len(c.Prompt) > 6300 {
				t.Errorf("%s %d: a prompt of %d bytes", name, i, len(c.Prompt))
			}
			answer, _ := until(c.Answers[0]+c.Stop+"and more", c.Stop)
			if s := score(c.Metric, answer, c.Answers); s < 0.999 {
				t.Errorf("%s %d: the right answer scores %g", name, i, s)
			}
		}
	}
}

func TestUntil(t *testing.T) {
	f := func(text, stop, want string, over bool) {
		t.Helper()
		if got, o := until(text, stop); got != want || o != over {
			t.Errorf("%q until %q is %q, %t; want %q, %t", text, stop, got, o, want, over)
		}
	}
	f(" a b", "", "a b", false)
	f("\n\na\nb", "\n", "a", true)
	f("a", "\n", "a", false)
	f("\n\n\n", "\n\n\n", "", false)
}

func FuzzConvert(f *testing.F) {
	f.Add("humaneval", []byte(`{"prompt":"def a():\n","canonical_solution":"    return 1\n"}`), 100)
	f.Add("scitldr", []byte(`{"source":["One."],"target":["A."]}`), 10)
	f.Add("fairytaleqa", []byte(`{"sections":["A. B. C.","D. E. F."]}`), 50)
	f.Add("movie-reviews", []byte("PK\x05\x06"+strings.Repeat("\x00", 18)), 1)
	f.Fuzz(func(t *testing.T, source string, data []byte, size int) {
		made, err := Convert(source, data, 3, size)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := WriteTaskFile(&b, made); err != nil {
			t.Fatal(err)
		}
		for _, c := range made {
			if len(c.Answers) == 0 || c.Prompt == "" {
				t.Fatalf("a case with nothing to ask or to score: %+v", c)
			}
		}
	})
}
