// Any machine: four channels side by side, which every compiler knows.
#define LANES 4
#include "scan.h"

namespace tokenizers_vq {
namespace scan {
const Kernel kGeneric = {"generic", LANES, forward, backward};
}
}  // namespace tokenizers_vq
