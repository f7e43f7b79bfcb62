package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer"
	"github.com/terse-llm/terse/tokenizer/chat"
)

// Options says what a [Server] serves and within which limits.
type Options struct {
	Dispatcher Dispatcher           // runs the requests; required
	Tokenizer  *tokenizer.Tokenizer // the model's; required
	Template   *chat.Template       // the model's; nil refuses chats
	Models     []string             // names clients may ask for, the model's own first; required
	MaxContext int                  // tokens of prompt and answer together; required
	StopTokens []terse.Token        // end every answer; nil takes the tokenizer's
	Created    time.Time            // of the model, for /v1/models
	APIKey     string               // clients must show it; empty lets everyone in

	Health   func() error         // what /healthz asks beyond being alive; nil = nothing
	Registry *prometheus.Registry // what /metrics shows; nil = a new one
	Logger   *slog.Logger         // one line a request; nil = none

	MaxBodyBytes  int64         // of a request; 0 = 16 MiB
	MaxConcurrent int           // requests in work, more are answered 429; 0 = 256
	MaxParallel   int           // choices of one request generated at a time; 0 = 16
	Timeout       time.Duration // of a request, then 504; 0 = none
	ClientTimeout time.Duration // for a client to send its body, or to take an answer's part; 0 = 1 min
}

// Server is the OpenAI API over a [Dispatcher].
type Server struct {
	opts    Options
	log     *slog.Logger
	vocab   vocabulary
	rules   ruleSet
	metrics *metrics
	key     [sha256.Size]byte
	slots   chan struct{} // one for each request in work

	now   func() time.Time
	newID func(prefix string) string
}

// New checks the options and makes a server.
func New(opts Options) (*Server, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("cannot make the API server: %w", err)
	}
	vocab, err := newVocabulary(opts.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("cannot read the tokenizer's control tokens: %w", err)
	}
	m, err := newMetrics(&opts)
	if err != nil {
		return nil, err
	}
	return &Server{
		opts: opts, log: opts.Logger, vocab: vocab, rules: newRuleSet(), metrics: m,
		key: sha256.Sum256([]byte(opts.APIKey)), slots: make(chan struct{}, opts.MaxConcurrent),
		now: time.Now, newID: randomID,
	}, nil
}

// complete fills in the defaults and refuses what cannot be served.
func (o *Options) complete() error {
	switch {
	case o.Dispatcher == nil:
		return errors.New("Options.Dispatcher is nil")
	case o.Tokenizer == nil:
		return errors.New("Options.Tokenizer is nil: the API takes text, which needs the model's tokenizer")
	case len(o.Models) == 0 || o.Models[0] == "":
		return errors.New("Options.Models is empty: give the model a name")
	case o.MaxContext < 1:
		return fmt.Errorf("Options.MaxContext is %d: it must be at least 1", o.MaxContext)
	}
	if o.StopTokens == nil {
		o.StopTokens = o.Tokenizer.StopTokens()
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = 16 << 20
	}
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent = 256
	}
	if o.MaxParallel == 0 {
		o.MaxParallel = 16
	}
	if o.ClientTimeout == 0 {
		o.ClientTimeout = time.Minute
	}
	return nil
}

// handlerFunc is a handler that returns its failure.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// Handler serves the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h handlerFunc, methods ...string) {
		mux.Handle(pattern, s.wrap(h, methods))
	}
	locked := s.authorised
	handle("/v1/chat/completions", locked(s.generation("chat", "chatcmpl", s.prepareChat)), http.MethodPost)
	handle("/v1/completions", locked(s.generation("completions", "cmpl", s.prepareCompletion)), http.MethodPost)
	handle("/v1/models", locked(s.listModels), http.MethodGet)
	handle("/v1/models/{id...}", locked(s.getModel), http.MethodGet)
	handle("/tokenize", locked(s.tokenize), http.MethodPost)
	handle("/detokenize", locked(s.detokenize), http.MethodPost)
	handle("/healthz", s.healthz, http.MethodGet)
	handle("/readyz", s.readyz, http.MethodGet)
	scrape := promhttp.HandlerFor(s.opts.Registry, promhttp.HandlerOpts{})
	handle("/metrics", func(w http.ResponseWriter, r *http.Request) error {
		scrape.ServeHTTP(w, r)
		return nil
	}, http.MethodGet)
	handle("/", func(_ http.ResponseWriter, r *http.Request) error {
		return badBody(http.StatusNotFound, "not_found", "there is nothing at %s %s: see the API's paths in the documentation", r.Method, r.URL.Path)
	})
	return mux
}

// wrap checks the method, writes a handler's failure and survives its panic.
func (s *Server) wrap(h handlerFunc, methods []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &answerWriter{ResponseWriter: w}
		defer s.survive(out, r)
		if err := checkMethod(r, methods); err != nil {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			writeError(out, toAPIError(err))
			return
		}
		if err := h(out, r); err != nil && !out.begun {
			writeError(out, toAPIError(err))
		}
	})
}

func checkMethod(r *http.Request, methods []string) error {
	if len(methods) == 0 {
		return nil
	}
	for _, m := range methods {
		if r.Method == m || m == http.MethodGet && r.Method == http.MethodHead {
			return nil
		}
	}
	return badBody(http.StatusMethodNotAllowed, "method_not_allowed", "%s takes %s, not %s", r.URL.Path, strings.Join(methods, ", "), r.Method)
}

// survive turns a handler's panic into an error answer; where the answer has
// begun, the connection is cut, so that no client takes it for whole.
func (s *Server) survive(w *answerWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("panic", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	writeError(w, toAPIError(&terse.Error{Code: terse.CodeInternal, Message: "internal error: the server's log has more"}))
}

// answerWriter knows whether an answer has begun.
type answerWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *answerWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *answerWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets an [http.ResponseController] reach the connection.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// authorised refuses clients without the key. Hashes of equal length are
// compared, so that the time taken says nothing about the key.
func (s *Server) authorised(h handlerFunc) handlerFunc {
	if s.opts.APIKey == "" {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		given := sha256.Sum256([]byte(token))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(given[:], s.key[:]) != 1 {
			return &apiError{
				Status: http.StatusUnauthorized, Type: typeAuth, Code: "invalid_api_key",
				Message: "the API key is missing or wrong: send the header 'Authorization: Bearer KEY' with the server's key",
			}
		}
		return h(w, r)
	}
}

// enter takes a place among the requests in work, or says that there is none.
func (s *Server) enter() (leave func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	default:
		return nil, &terse.Error{
			Code:    terse.CodeOverloaded,
			Message: fmt.Sprintf("%d requests are in work, which is the limit: try again in a moment", cap(s.slots)),
		}
	}
}
