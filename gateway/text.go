package gateway

// Template writes a chat as the model was trained to read it.
type Template interface {
	// Render writes the messages and, with open, the beginning of an answer.
	// Its errors are about the messages: a template may refuse them.
	Render(messages []Message, open bool) (string, error)
}
