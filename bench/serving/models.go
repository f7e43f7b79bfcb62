package serving

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// FirstModel asks an endpoint for the first model that it lists.
func FirstModel(ctx context.Context, client *http.Client, t *Target) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(t.URL, "/")+"/models", nil)
	if err != nil {
		return "", fmt.Errorf("cannot measure %s: %w", t.URL, err)
	}
	if t.Key != "" {
		req.Header.Set("Authorization", "Bearer "+t.Key)
	}
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("cannot measure %s: %w", t.URL, err)
	}
	defer res.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("cannot measure %s: /models says %s; is it an OpenAI API, up to and including /v1?", t.URL, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxEvent)).Decode(&list); err != nil || len(list.Data) == 0 {
		return "", fmt.Errorf("cannot measure %s: it lists no model; name one", t.URL)
	}
	return list.Data[0].ID, nil
}
