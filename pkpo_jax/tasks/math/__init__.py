"""Problems with one final answer: MATH and GSM8K."""
