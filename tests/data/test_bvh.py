import numpy as np

from tokenizers_vq.data.bvh import read_bvh

ARM = """HIERARCHY
ROOT rig:Hips
{
  OFFSET 9 9 9
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Arm
  {
    OFFSET 2 0 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 3 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
"""


def test_angles_turn_what_hangs_on_a_joint_by_hand(tmp_path):
    path = tmp_path / "arm.bvh"
    # all still; then the root at 1 2 3 turned by z 90 (x to y), the arm by z 90 and then x 90
    path.write_text(ARM + "0 0 0 0 0 0 0 0 0\n1 2 3 90 0 0 90 0 90\n")
    motion = read_bvh(path)
    assert motion.names == ["Hips", "Arm", "Arm_end"]
    assert motion.frame_time == 0.05
    np.testing.assert_allclose(motion.places[0], [[0, 0, 0], [2, 0, 0], [2, 3, 0]], atol=1e-12)
    # inner x turn: y to z; z turns leave it
    np.testing.assert_allclose(motion.places[1], [[1, 2, 3], [1, 4, 3], [1, 4, 6]], atol=1e-12)


def test_the_first_channel_is_outermost(tmp_path):
    path = tmp_path / "arm.bvh"
    # y by 90 after x by 90: y to z to x; under the root's turn by x 90 nothing else
    path.write_text(ARM.replace("Frames: 2", "Frames: 1") + "0 0 0 0 0 0 0 90 90\n")
    np.testing.assert_allclose(read_bvh(path).places[0, 2], [2 + 3, 0, 0], atol=1e-12)


def test_what_cannot_be_read_says_why(tmp_path):
    cases = {
        "nothing": "not a BVH file",
        ARM + "0 0 0 0 0 0 0 0 0\n": "1 frames where its header says 2",
        ARM + "0 0 0 0\n": "not readable (cannot reshape array of size 4 into shape (9))",
        ARM + "nan 0 0 0 0 0 0 0 0\n" * 2: "numbers that are not finite",
        ARM.replace("3 Zr", "3 Wr") + "0 0 0 0 0 0 0 0 0\n" * 2: "not readable ('W')",
    }
    for text, reason in cases.items():
        path = tmp_path / "it.bvh"
        path.write_text(text)
        assert read_bvh(path) == reason
    assert read_bvh(tmp_path / "none.bvh").startswith("not readable (")
