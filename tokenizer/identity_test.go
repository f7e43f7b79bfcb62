package tokenizer_test

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/tokenizer"
)

// The identity follows what decides about text, and nothing else.
func TestIdentity(t *testing.T) {
	dir := func(files ...string) fstest.MapFS {
		fsys := fstest.MapFS{"config.json": {Data: []byte("{}")}}
		for i := 0; i < len(files); i += 2 {
			fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
		}
		return fsys
	}
	identity := func(fsys fstest.MapFS) string {
		id, err := tokenizer.Identity(fsys)
		require.NoError(t, err)
		return id
	}
	base := identity(dir("tokenizer.json", "a", "tokenizer_config.json", "b"))
	require.Len(t, base, 64)
	require.Equal(t, base, identity(dir("tokenizer.json", "a", "tokenizer_config.json", "b", "model.safetensors", "w")))
	seen := map[string]bool{base: true}
	for _, other := range []fstest.MapFS{
		dir("tokenizer.json", "ab", "tokenizer_config.json", "b"),
		dir("tokenizer.json", "a", "tokenizer_config.json", ""),
		dir("tokenizer.json", "a"),
		dir("tokenizer.json", "a", "tokenizer_config.json", "b", "chat_template.jinja", "c"),
		dir("tokenizer.json", "a", "tokenizer_config.json", "b", "generation_config.json", "c"),
		dir("tokenizer.model", "a", "tokenizer_config.json", "b"),
	} {
		id := identity(other)
		require.False(t, seen[id], "%v has the identity of another", other)
		seen[id] = true
	}
	require.Empty(t, identity(dir()))
	require.Empty(t, identity(dir("tokenizer_config.json", "b")))
	builtin, err := tokenizer.Identity(defaultmodel.FS())
	require.NoError(t, err)
	require.Len(t, builtin, 64)
}

func TestIdentityGGUF(t *testing.T) {
	id := func(tokens ...string) string {
		return tokenizer.IdentityGGUF(map[string]any{"tokenizer.ggml.tokens": tokens, "general.name": tokens[0] + "!"})
	}
	require.Equal(t, id("a", "b"), id("a", "b"))
	require.NotEqual(t, id("a", "b"), id("a b"))
	require.NotEqual(t, id("a", "b"), id("a", "b", ""))
	meta := map[string]any{"tokenizer.ggml.tokens": []string{"a", "b"}}
	require.Equal(t, id("a", "b"), tokenizer.IdentityGGUF(meta), "the model's name is no part of it")
	meta["tokenizer.chat_template"] = "x"
	require.NotEqual(t, id("a", "b"), tokenizer.IdentityGGUF(meta))
	require.Empty(t, tokenizer.IdentityGGUF(map[string]any{"general.name": "x"}))
}
