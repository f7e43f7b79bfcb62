package gateway

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/terse-llm/terse/tokenizer/chat"
)

// readMessages reads the array messages of a chat.
func (s *Server) readMessages(raw json.RawMessage) ([]chat.Message, error) {
	if isNull(raw) {
		return nil, missing("messages")
	}
	var messages []chat.Message
	err := eachElement(raw, "messages", func(i int, dec *json.Decoder) error {
		var element json.RawMessage
		if err := dec.Decode(&element); err != nil {
			return err
		}
		m, err := s.readMessage(element, fmt.Sprintf("messages[%d]", i))
		messages = append(messages, m)
		return err
	})
	if err == nil && len(messages) == 0 {
		err = badField("messages", "'messages' is an empty array: give at least one message")
	}
	return messages, err
}

func (s *Server) readMessage(raw json.RawMessage, where string) (chat.Message, error) {
	var in struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	}
	if err := decodeObject(raw, where, s.rules.message, &in); err != nil {
		return chat.Message{}, err
	}
	role, err := chatRole(in.Role, where+".role")
	if err != nil {
		return chat.Message{}, err
	}
	content, err := s.readContent(in.Content, where+".content")
	return chat.Message{Role: role, Content: content}, err
}

// chatRole maps OpenAI's roles to those that templates know.
func chatRole(role, param string) (string, error) {
	switch role {
	case "system", "user", "assistant":
		return role, nil
	case "developer": // OpenAI's newer name of system
		return "system", nil
	case "":
		return "", missing(param)
	case "tool", "function":
		return "", unsupported(param, "messages of role '"+role+"' belong to tool calling, which is not there yet")
	}
	return "", badField(param, "'%s' is %q, it must be one of system, developer, user, assistant", param, role)
}

// readContent reads a text or an array of text parts. Parts are joined by line
// ends, as vLLM and llama.cpp do.
func (s *Server) readContent(raw json.RawMessage, param string) (string, error) {
	if isNull(raw) {
		return "", missing(param)
	}
	if raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", jsonError(err, param)
		}
		return text, nil
	}
	if raw[0] != '[' {
		return "", badField(param, "'%s' must be a string or an array of parts of type text", param)
	}
	var texts []string
	err := eachElement(raw, param, func(i int, dec *json.Decoder) error {
		var element json.RawMessage
		if err := dec.Decode(&element); err != nil {
			return err
		}
		text, err := s.readPart(element, fmt.Sprintf("%s[%d]", param, i))
		texts = append(texts, text)
		return err
	})
	return strings.Join(texts, "\n"), err
}

func (s *Server) readPart(raw json.RawMessage, where string) (string, error) {
	var part struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if err := decodeObject(raw, where, s.rules.part, &part); err != nil {
		return "", err
	}
	switch {
	case part.Type == "":
		return "", missing(where + ".type")
	case part.Type != "text":
		return "", unsupported(where+".type", "parts of type '"+part.Type+"' are not read; "+noMultimodal)
	case part.Text == nil:
		return "", missing(where + ".text")
	}
	return *part.Text, nil
}
