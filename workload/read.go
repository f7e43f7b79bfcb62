package workload

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Open reads a trace file, or a ServeGen directory with o.
func Open(path string, o ServeGenOptions) (*Workload, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the trace: %w", err)
	}
	if info.IsDir() {
		return ServeGen(os.DirFS(path), filepath.Base(path), o)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the trace: %w", err)
	}
	defer f.Close()
	w, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read the trace %s: %w", path, err)
	}
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	w.Name = name
	return w, nil
}

// Read reads a trace of any kind but ServeGen's.
func Read(r io.Reader) (*Workload, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if head, _ := in.Peek(2); bytes.Equal(head, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = bufio.NewReaderSize(unpacked, 64<<10)
	}
	w := &Workload{BlockTokens: blockTokens}
	head, err := in.Peek(1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(head) == 1 && head[0] == '{':
		err = w.readMooncake(in)
	default:
		err = w.readCSV(in)
	}
	if err != nil {
		return nil, err
	}
	if len(w.Requests) == 0 {
		return nil, errors.New("there are no requests in it")
	}
	w.sort()
	return w, nil
}

// rows calls row with every line that is not blank, numbered from 1.
func rows(r io.Reader, row func(n int, line []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if n > maxRows {
			return fmt.Errorf("more than %d rows: cut the trace", maxRows)
		}
		if err := row(n, line); err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a row of over %d bytes: this is not a trace", maxLine)
	}
	return lines.Err()
}

// checkTokens bounds a number of tokens.
func checkTokens(what string, n int64) (int, error) {
	if n < 0 || n > maxTokens {
		return 0, fmt.Errorf("%s is %d: it must be 0 to %d", what, n, maxTokens)
	}
	return int(n), nil
}
