package main

import (
	"bytes"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse/bench/serving"
)

// measured is what the script below finds on a page in a browser.
type measured struct {
	Dark     bool     // the browser asks for dark pages
	Fetched  []string // addresses of everything loaded beside the page
	Wide     bool     // the page is wider than its window
	Contrast float64  // of text to its ground, the least of page and drawings (WCAG: 4.5 is readable)
	Drawings []struct {
		Width, Height float64
		Marks         int      // circles, bars and cells
		Outside       []string // texts that are cut off
		Crossing      []string // pairs of texts that lie on each other
	}
	Rows, Empty int // of tables: rows, and cells without text
}

const measure = `<script>
const light = c => { const [r, g, b] = c.match(/[\d.]+/g).slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
const contrast = (a, b) => { const [x, y] = [light(a), light(b)]; return (Math.max(x, y) + .05) / (Math.min(x, y) + .05) };
addEventListener("load", () => {
  const of = (at, what) => [...at.querySelectorAll(what)], style = e => getComputedStyle(e);
  const ground = style(document.body).backgroundColor;
  const m = {Dark: matchMedia("(prefers-color-scheme: dark)").matches, Fetched: performance.getEntriesByType("resource").map(e => e.name),
    Wide: document.documentElement.scrollWidth > innerWidth,
    Contrast: Math.min(...of(document.body, "h1,h2,p,pre,td,th").map(e => contrast(style(e).color, ground)), ...of(document, "svg text").map(e => contrast(style(e).fill, style(e.ownerSVGElement.querySelector("rect")).fill))),
    Rows: of(document, "tr").length, Empty: of(document, "td").filter(e => !e.textContent.trim()).length};
  m.Drawings = of(document, "svg").map(svg => {
    const b = svg.getBoundingClientRect(), v = svg.viewBox.baseVal, texts = of(svg, "text").map(e => [e.textContent, e.getBBox()]), crossing = [];
    texts.forEach(([s, p], i) => texts.slice(0, i).forEach(([t, q]) => {
      const w = Math.min(p.x + p.width, q.x + q.width) - Math.max(p.x, q.x), h = Math.min(p.y + p.height, q.y + q.height) - Math.max(p.y, q.y);
      if (w > 2 && h > 5) crossing.push(s + " on " + t); // boxes have room above and below the letters
    }));
    return {Width: b.width, Height: b.height, Marks: of(svg, "circle,rect").length - 1, Crossing: crossing,
      Outside: texts.filter(([s, p]) => p.x < 0 || p.y < 0 || p.x + p.width > v.width || p.y + p.height > v.height).map(([s]) => s)};
  });
  document.body.append(Object.assign(document.createElement("pre"), {id: "measured", textContent: JSON.stringify(m)}));
});
</script>`

// open opens a page in the browser, in a window so wide.
func open(t *testing.T, chromium, page string, width string, dark bool) *measured {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, []byte(page+measure), 0o644); err != nil {
		t.Fatal(err)
	}
	scheme := "1"
	if dark {
		scheme = "0"
	}
	c := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
		"--user-data-dir="+filepath.Join(t.TempDir(), "profile"), "--window-size="+width+",900", "--blink-settings=preferredColorScheme="+scheme, "--dump-dom", "file://"+path)
	c.WaitDelay = time.Second // its children may outlive it
	var out, log bytes.Buffer
	c.Stdout, c.Stderr = &out, &log
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	if strings.Contains(log.String(), "CONSOLE") {
		t.Errorf("the page complains: %s", log.String())
	}
	_, found, _ := strings.Cut(out.String(), `<pre id="measured">`)
	found, _, ok := strings.Cut(found, "</pre>")
	if !ok {
		t.Fatalf("nothing was measured: %s", log.String())
	}
	var m measured
	if err := json.Unmarshal([]byte(html.UnescapeString(found)), &m); err != nil {
		t.Fatal(err)
	}
	return &m
}

// The pages of terse eval and of terse bench serve, in a browser: all that they
// draw is there and readable on light and dark screens, wide and narrow, and they
// load nothing.
func TestPagesInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser four times")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium: apt-get install chromium")
	}
	f := func(page string, drawings int) {
		t.Helper()
		rows := strings.Count(page, "<tr>")
		for width, dark := range map[string]bool{"1280": false, "600": true} {
			m := open(t, chromium, page, width, dark)
			if m.Dark != dark || m.Wide || m.Contrast < 4.5 || len(m.Fetched) > 0 || m.Rows != rows || rows < 8 || m.Empty > 0 || len(m.Drawings) != drawings {
				t.Errorf("%s wide, dark %v: %+v, want %d drawings and %d rows", width, dark, m, drawings, rows)
			}
			for i, d := range m.Drawings {
				if d.Width < 300 || d.Height < 30 || d.Marks < 1 || len(d.Outside) > 0 || len(d.Crossing) > 0 {
					t.Errorf("%s wide, drawing %d: %+v", width, i, d)
				}
			}
		}
	}
	results := filepath.Join("..", "..", "docs", "results", "long-r10.json")
	f(qualityPage(t, results), 5)
	b, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	var r serving.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	if err := r.HTML(&page); err != nil {
		t.Fatal(err)
	}
	f(page.String(), 2)
}
