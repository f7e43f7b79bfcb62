package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/gateway"
	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tokenizer"
	"github.com/terse-llm/terse/tokenizer/chat"
	"github.com/terse-llm/terse/weights"
)

// modelFlags choose a model and how its text is handled.
type modelFlags struct {
	path, name, template string
}

func (f *modelFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.path, "model", "", "model: a Hugging Face directory or a GGUF file (default: the built-in "+defaultmodel.Name+")")
	c.Flags().StringVar(&f.name, "served-model-name", "", "name that clients ask for (default: the directory's or file's)")
}

func (f *modelFlags) registerText(c *cobra.Command) {
	c.Flags().StringVar(&f.template, "chat-template", "", "file with a Jinja chat template, instead of the model's own")
}

// files is an opened model: its tensors, configuration and text side.
type files struct {
	source *weights.Source
	config model.Config
	name   string
	path   string // "" for the built-in model
}

// open maps the model's files and reads its configuration.
func (f *modelFlags) open() (*files, error) {
	m := &files{name: f.name, path: f.path}
	var err error
	if f.path == "" {
		m.source, err = weights.OpenFS(defaultmodel.FS())
		m.name = orElse(m.name, defaultmodel.Name)
	} else {
		m.source, err = weights.Open(f.path)
		m.name = orElse(m.name, strings.TrimSuffix(filepath.Base(filepath.Clean(f.path)), ".gguf"))
	}
	if err != nil {
		return nil, err
	}
	if m.config, err = model.ConfigOf(m.source); err != nil {
		return nil, errors.Join(err, m.source.Close())
	}
	return m, nil
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// identity is what two workers compare to know that they run the same model: the
// tensors and every setting of the graph (RoPE, norms), which is not in them.
func (m *files) identity() [32]byte {
	tensors := m.source.Fingerprint()
	return sha256.Sum256(fmt.Appendf(tensors[:], "%+v", m.config))
}

// textIdentity is what a gateway and a worker compare to know that they read the
// same text in the same tokens.
func (m *files) textIdentity() (string, error) {
	if meta, ok := m.source.GGUF(); ok {
		return tokenizer.IdentityGGUF(meta), nil
	}
	return tokenizer.Identity(m.source.FS())
}

// served is the model as a gateway compares it with its workers'. A template
// given on the command line is the user's choice, and no part of it.
func (m *files) served() (gateway.Model, error) {
	text, err := m.textIdentity()
	hash := m.identity()
	return gateway.Model{Name: m.name, Hash: hex.EncodeToString(hash[:]), Text: text}, err
}

// checkContext refuses a --ctx that the model was not made for.
func (m *files) checkContext(ctx int) error {
	if ctx < 0 || ctx > m.config.MaxContext {
		return fmt.Errorf("--ctx is %d: the context of model %s is %d tokens", ctx, m.name, m.config.MaxContext)
	}
	return nil
}

// tokenizer reads the vocabulary from where the model keeps it.
func (m *files) tokenizer() (*tokenizer.Tokenizer, error) {
	if meta, ok := m.source.GGUF(); ok {
		return tokenizer.FromGGUF(meta)
	}
	return tokenizer.Load(m.source.FS())
}

// chatTemplate reads the model's template, or the user's file. A model without
// one is fine until somebody wants to chat: nil.
func (m *files) chatTemplate(override string) (*chat.Template, error) {
	var jinja []byte
	if override != "" {
		b, err := os.ReadFile(override)
		if err != nil {
			return nil, fmt.Errorf("cannot read the chat template: %w", err)
		}
		jinja = b
	}
	if meta, ok := m.source.GGUF(); ok {
		return ggufTemplate(meta, jinja)
	}
	config, err := fs.ReadFile(m.source.FS(), "tokenizer_config.json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read tokenizer_config.json: %w", err)
	}
	if jinja == nil {
		if jinja, err = fs.ReadFile(m.source.FS(), "chat_template.jinja"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot read chat_template.jinja: %w", err)
		}
	}
	t, err := chat.FromConfig(config, jinja)
	if errors.Is(err, chat.ErrNoTemplate) {
		return nil, nil
	}
	return t, err
}

// ggufTemplate takes the template and the special tokens out of GGUF metadata.
func ggufTemplate(meta map[string]any, jinja []byte) (*chat.Template, error) {
	if jinja == nil {
		s, ok := meta["tokenizer.chat_template"].(string)
		if !ok {
			return nil, nil
		}
		jinja = []byte(s)
	}
	tok, err := tokenizer.FromGGUF(meta)
	if err != nil {
		return nil, err
	}
	var o chat.Options
	if id, ok := tok.BOS(); ok {
		o.BOS = tok.TokenText(id)
	}
	if id, ok := tok.EOS(); ok {
		o.EOS = tok.TokenText(id)
	}
	return chat.Parse(string(jinja), o)
}

// stopTokens are what the tokenizer's files and the model's configuration say
// ends an answer; they do not always agree, and either ends it.
func (m *files) stopTokens(fromTokenizer []terse.Token) []terse.Token {
	stops := slices.Concat(fromTokenizer, m.config.EOS)
	slices.Sort(stops)
	return slices.Compact(stops)
}

// kvFlags choose the number format of the KV cache.
type kvFlags struct {
	format, important, calibration string
}

func (f *kvFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.format, "kv", "hq3", "KV format: "+strings.Join(quant.FormatNames(), ", ")+"; options after commas, as in hq2,sym=off")
	c.Flags().StringVar(&f.important, "important", "", "share of a prompt's tokens, by the attention of its last ones, that hq2 and hq3 keep in 4 bits, as in 10%")
	c.Flags().StringVar(&f.calibration, "calibration", "", "calibration file of the model, 'none' for none (default: "+calibrationFile+" in the model's directory)")
}

// calibrationFile is where a model directory keeps what terse calibrate wrote.
const calibrationFile = "kv.calibration"

// name is the format with all its options.
func (f *kvFlags) name() string {
	if f.important == "" {
		return f.format
	}
	return f.format + ",important=" + f.important
}

// geometry lays the chosen format out for the model, with its calibration.
func (f *kvFlags) geometry(m *files) (*quant.Geometry, *quant.Calibration, error) {
	cal, err := f.readCalibration(m)
	if err != nil {
		return nil, nil, err
	}
	format, err := quant.ParseFormat(f.name(), cal != nil)
	if err != nil {
		return nil, nil, err
	}
	g, err := m.config.CalibratedGeometry(format, cal)
	if err != nil {
		return nil, nil, err
	}
	g, err = g.Profiled(cal)
	return g, cal, err
}

func (f *kvFlags) readCalibration(m *files) (*quant.Calibration, error) {
	if f.calibration == "none" {
		return nil, nil
	}
	r, err := f.openCalibration(m)
	if err != nil {
		return nil, fmt.Errorf("cannot open the calibration file: %w", err)
	}
	if r == nil {
		return nil, nil
	}
	defer r.Close()
	return quant.ReadCalibration(r)
}

// openCalibration opens the file named by the flag, or the one beside the model
// if there is one.
func (f *kvFlags) openCalibration(m *files) (io.ReadCloser, error) {
	if f.calibration != "" {
		return os.Open(f.calibration)
	}
	var r io.ReadCloser
	var err error
	if _, gguf := m.source.GGUF(); gguf {
		r, err = os.Open(m.path + "." + calibrationFile)
	} else {
		r, err = m.source.FS().Open(calibrationFile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}
