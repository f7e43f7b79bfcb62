package serving

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"text/template"
)

// Document fills a template with the figures of reports, so that no figure in a
// text is typed by hand. Reports are files NAME.json in results. The template may
// say
//
//	{{title "NAME"}}                what was replayed, where
//	{{table "NAME"}}                its tables
//	{{plot "NAME"}}                 a link to its bars, which are written beside it
//	{{cut "NAME" "hq2" "f16"}}      how much shorter hq2's mean JCT is than f16's, such as -76 %
//	{{jct "NAME" "hq2"}}            a mean JCT; likewise share and split, in per cent
//	{{carried "NAME" "hq2"}}        the rate at which the KV cache crossed, from the first byte to the last
//	{{commit "NAME"}}               the version that measured it
//	{{range list "1" "2"}}          the words of a list
//
// and what more functions give. plots are the SVG files to write, by their names.
func Document(results fs.FS, text string, more template.FuncMap) (doc string, plots map[string]string, err error) {
	plots = map[string]string{}
	d := &document{results: results, read: map[string]*Report{}}
	t, err := template.New("report").Funcs(more).Funcs(template.FuncMap{
		"title":  d.whole((*Report).Title),
		"commit": d.whole(func(r *Report) string { return r.Version }),
		"table":  d.whole(func(r *Report) string { return strings.TrimSuffix(r.Markdown(), "\n") }),
		"plot": func(name string) (string, error) {
			r, err := d.report(name)
			if err != nil {
				return "", err
			}
			plots[name+".svg"] = r.Bars() + "\n"
			return fmt.Sprintf("![where the time went: %s](results/%s.svg)", name, name), nil
		},
		"list": func(words ...string) []string { return words },
		"cut":  d.cut,
		"jct": func(name, target string) (string, error) {
			return d.of(name, target, func(r *Row) string { return clock(r.JCT.Mean) })
		},
		"share": func(name, target string) (string, error) {
			return d.of(name, target, func(r *Row) string { return fmt.Sprintf("%.1f %%", 100*r.KVShare) })
		},
		"carried": d.carried,
		"split": func(name, target string) (string, error) {
			return d.of(name, target, func(r *Row) string { return fmt.Sprintf("%.0f %%", 100*r.Split) })
		},
	}).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", nil, fmt.Errorf("cannot read the report's template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, nil); err != nil {
		return "", nil, fmt.Errorf("cannot write the report: %w", err)
	}
	return b.String(), plots, nil
}

type document struct {
	results fs.FS
	read    map[string]*Report
}

func (d *document) report(name string) (*Report, error) {
	if r := d.read[name]; r != nil {
		return r, nil
	}
	f, err := d.results.Open(path.Clean(name) + ".json")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := ReadReport(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(r.Rows) == 0 {
		return nil, fmt.Errorf("%s: %w", name, errors.New("it has no rows"))
	}
	d.read[name] = r
	return r, nil
}

// whole is a function of a template that says something of a report.
func (d *document) whole(says func(*Report) string) func(name string) (string, error) {
	return func(name string) (string, error) {
		r, err := d.report(name)
		if err != nil {
			return "", err
		}
		return says(r), nil
	}
}

func (d *document) row(name, target string) (*Row, error) {
	r, err := d.report(name)
	if err != nil {
		return nil, err
	}
	for i := range r.Rows {
		if r.Rows[i].Target == target {
			return &r.Rows[i], nil
		}
	}
	return nil, fmt.Errorf("%s has no row %q", name, target)
}

func (d *document) of(name, target string, figure func(*Row) string) (string, error) {
	row, err := d.row(name, target)
	if err != nil {
		return "", err
	}
	return figure(row), nil
}

// carried is the rate at which a KV cache crossed.
func (d *document) carried(name, target string) (string, error) {
	r, err := d.row(name, target)
	if err != nil {
		return "", err
	}
	if r.TransferWhole == 0 {
		return "", fmt.Errorf("%s: %q moved nothing", name, target)
	}
	return fmt.Sprintf("%.2g Gb/s", 8*r.KVBytes/r.TransferWhole/1e9), nil
}

// cut compares mean JCTs.
func (d *document) cut(name, target, with string) (string, error) {
	a, err := d.row(name, target)
	if err != nil {
		return "", err
	}
	b, err := d.row(name, with)
	if err != nil {
		return "", err
	}
	if b.JCT.Mean == 0 {
		return "", fmt.Errorf("%s: %q answered nothing", name, with)
	}
	return strings.Replace(fmt.Sprintf("%+.0f %%", 100*(a.JCT.Mean/b.JCT.Mean-1)), "-", "−", 1), nil
}
