package consulca

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyNoLeaks(m) }
